# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A LoRA adapter as the SFT checkpoint, against NumPy and against PEFT's own merge."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import SINGLE, edit_json, save_model, set_weights, snapshot, weights
from fusion_reference import canonical_bits, round_to_bits
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rejuv_plugin.checkpoint import apply, pieces, plan_fusion, read_inputs
from rejuv_plugin.config import FusionConfig, ResetConfig
from rejuv_plugin.errors import InputError
from rejuv_plugin.report.apply import plan_record

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
MODULES = [Q, DOWN, "model.layers.0.mlp.up_proj"]
STORED = "base_model.model."


def make(tmp_path: Path, rank: int = 3, dtype: torch.dtype = torch.bfloat16, **config: object) -> Path:
    """A base and an adapter of it, written by hand; returns the adapter's directory."""
    base = weights(save_model(tmp_path / "base", 0, dtype=dtype, max_shard_size="20KB"))
    generator, tensors = torch.Generator().manual_seed(1), {}
    for module in MODULES:
        rows, columns = base[f"{module}.weight"].shape
        ranks = config.get("rank_pattern", {})
        r = next((value for key, value in ranks.items() if module.endswith(key)), rank)
        tensors[f"{STORED}{module}.lora_A.weight"] = torch.randn(r, columns, generator=generator) * 0.1
        tensors[f"{STORED}{module}.lora_B.weight"] = torch.randn(rows, r, generator=generator) * 0.1
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_file(tensors, adapter / "adapter_model.safetensors")
    entries = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "bias": "none", "target_modules": ["q_proj"]} | config
    (adapter / "adapter_config.json").write_text(json.dumps(entries))
    return adapter


def run(tmp_path: Path, alpha: float = 0.4, output: str = "out", **options: object) -> dict:
    fusion = FusionConfig(alpha, **options)
    return apply(plan_fusion(str(tmp_path / "base"), str(tmp_path / "adapter"), fusion), tmp_path / output)


def reference(base: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, alpha: float) -> np.ndarray:
    wide = base.double().numpy()
    delta = np.zeros(wide.shape)
    for k in range(a.shape[0]):
        delta = delta + b.double().numpy()[:, k, None] * a.double().numpy()[k]
    sft = wide + scale * delta
    return round_to_bits((alpha * sft + (1 - alpha) * wide).flatten(), base.dtype)


@pytest.mark.parametrize("elements", [7, 100, 1 << 18])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("config", "scale_of"),
    [
        ({}, lambda module: 8 / 3),
        ({"use_rslora": True}, lambda module: 8 / math.sqrt(3)),
        ({"alpha_pattern": {"q_proj": 5}}, lambda module: (5 if module == Q else 8) / 3),
        ({"rank_pattern": {"down_proj": 2}}, lambda module: 8 / (2 if module == DOWN else 3)),
    ],
    ids=["plain", "rslora", "alpha_pattern", "rank_pattern"],
)
def test_no_element_differs_from_the_reference(
    tmp_path: Path,
    config: dict,
    scale_of: Callable,
    dtype: torch.dtype,
    elements: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "ELEMENTS", elements)
    adapter = load_file(make(tmp_path, dtype=dtype, **config) / "adapter_model.safetensors")
    manifest = run(tmp_path)
    base, output = weights(tmp_path / "base"), weights(tmp_path / "out")
    assert list(base) == list(output)
    for name, tensor in output.items():
        module = name.removesuffix(".weight")
        if module in MODULES:
            a, b = (adapter[f"{STORED}{module}.lora_{side}.weight"] for side in "AB")
            expected = reference(base[name], a, b, scale_of(module), 0.4)
            assert np.array_equal(canonical_bits(tensor.flatten()), expected), name
            assert not torch.equal(tensor, base[name])
        else:
            assert torch.equal(tensor, base[name]), name
    assert manifest["tensors"]["adapter"] == {"low_rank": 3, "replaced": 0}
    # As it is read or before: the same inputs, and the adapter's own files among them.
    plan = plan_fusion(str(tmp_path / "base"), str(tmp_path / "adapter"), FusionConfig(0.4))
    assert read_inputs(plan).sft == {n: f["digest"] for n, f in manifest["inputs"]["sft"]["files"].items()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(manifest["inputs"]["sft"]["files"])


def test_the_output_is_a_full_checkpoint(tmp_path: Path) -> None:
    adapter = make(tmp_path)
    run(tmp_path)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {path.name for path in (tmp_path / "base").iterdir()} | {"rejuvenation.json"}
    for name in names - {"rejuvenation.json"}:
        if not name.endswith(".safetensors"):
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "base" / name).read_bytes()
    (adapter / "tokenizer.json").write_text("its own")
    (adapter / "chat_template.jinja").write_text("its own")
    run(tmp_path, output="other")
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "other" / name).read_text() == "its own"
    # The base's other tokenizer files would not fit the adapter's tokenizer.
    assert not (tmp_path / "other" / "tokenizer_config.json").exists()


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("embeddings", [False, True])
def test_peft_merges_to_the_same(tmp_path: Path, rslora: bool, embeddings: bool) -> None:
    peft = pytest.importorskip("peft")
    save_model(tmp_path / "base", 0, dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=rslora,
        target_modules=["q_proj", "down_proj", *(["embed_tokens"] if embeddings else [])],
        modules_to_save=["lm_head"],
        rank_pattern={"layers.1.mlp.down_proj": 2},
        alpha_pattern={"q_proj": 3},
        init_lora_weights=False,
    )
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        adapted.base_model.model.lm_head.modules_to_save.default.weight.mul_(1.5)
    adapted.save_pretrained(tmp_path / "adapter")
    merged = adapted.merge_and_unload().state_dict()
    run(tmp_path, alpha=1.0)
    output = weights(tmp_path / "out")
    assert output.keys() == merged.keys()
    if embeddings:
        stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
        assert any(name.endswith("embed_tokens.base_layer.weight") for name in stored)
    changed = [name for name in output if not torch.equal(output[name], weights(tmp_path / "base")[name])]
    assert len(changed) == 4 + 1 + embeddings
    for name, tensor in output.items():
        # PEFT rounds the product to float32 first.
        torch.testing.assert_close(tensor, merged[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias 'all'"),
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base"),
        ({"target_parameters": ["mlp.experts"]}, "target_parameters"),
        ({"r": 4}, "rank 4"),
        ({"r": 0}, "ZeroDivisionError"),
        ({"r": None}, "TypeError"),
        ({"r": "3"}, "TypeError"),
        ({"rank_pattern": ["q_proj"]}, "AttributeError"),
        ({"rank_pattern": {"(": 3}}, "for model.layers"),
        ({"fan_in_fan_out": True}, "rank 3"),
    ],
)
def test_what_is_not_plain_lora_is_refused(tmp_path: Path, config: dict, says: str) -> None:
    edit_json(make(tmp_path) / "adapter_config.json", **config)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=r"^--sft: .*Fix: merge it into its base") as caught:
        run(tmp_path)
    assert says in str(caught.value)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda t: t.pop(f"{STORED}{Q}.lora_B.weight"), "lora_B.weight beside"),
        (lambda t: t.update({f"{STORED}other.lora_A.weight": torch.ones(3, 2)}), "lora_B.weight beside"),
        (lambda t: t.update({f"{STORED}nowhere.weight": torch.ones(3)}), "no counterpart"),
        (lambda t: t.update({f"{STORED}{Q}.lora_magnitude_vector": torch.ones(3)}), "no counterpart"),
        (lambda t: t.update({"model.norm.weight": torch.ones(32)}), "no counterpart"),
        (lambda t: t.update({f"{STORED}model.norm.weight": torch.ones(31)}), "of shape [32]"),
        (lambda t: t.update({f"{STORED}model.norm.weight": torch.ones(32).long()}), "floating-point"),
    ],
)
def test_an_adapter_of_another_model(tmp_path: Path, edit: Callable, says: str) -> None:
    file = make(tmp_path) / "adapter_model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"^--sft: ") as caught:
        run(tmp_path)
    assert says in str(caught.value)


def test_tied_embeddings_and_patterns_are_refused(tmp_path: Path) -> None:
    file = make(tmp_path) / "adapter_model.safetensors"
    with pytest.raises(InputError, match=r"^--exclude-tensors: .*no patterns with a LoRA adapter"):
        run(tmp_path, exclude_tensors="lm_head*")
    tensors = load_file(file)
    tensors[f"{STORED}lm_head.weight"] = torch.ones(64, 32)
    save_file(tensors, file)
    run(tmp_path)
    for config in (tmp_path / "base").glob("config.json"):
        edit_json(config, tie_word_embeddings=True)
    with pytest.raises(InputError, match=r"^--sft: expected embeddings left alone"):
        run(tmp_path, output="other")


@pytest.mark.parametrize("name", ["word_embeddings", "embed_out"])
def test_any_name_of_a_tied_embedding_is_refused(tmp_path: Path, name: str) -> None:
    """BLOOM's, GPT-NeoX's: as the checks of two checkpoints know them."""
    adapter, base, added = make(tmp_path) / "adapter_model.safetensors", tmp_path / "base", torch.ones(64, 32)
    save_file(load_file(adapter) | {f"{STORED}{name}.weight": added}, adapter)
    tensors = weights(base) | {f"{name}.weight": added}
    for file in base.glob("model*"):
        file.unlink()
    set_weights(base, tensors)
    edit_json(base / "config.json", tie_word_embeddings=True)
    with pytest.raises(InputError, match=r"^--sft: expected embeddings left alone"):
        run(tmp_path)


def test_embeddings_that_peft_saved_beside_the_adapter_must_be_the_bases(tmp_path: Path) -> None:
    file = make(tmp_path) / "adapter_model.safetensors"
    tensors, name = load_file(file), f"{STORED}model.embed_tokens.base_layer.weight"
    tensors[name] = weights(tmp_path / "base")["model.embed_tokens.weight"]
    save_file(tensors, file)
    run(tmp_path)
    tensors[name][-1, -1] += 1
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"^--sft: expected model.embed_tokens.weight as in --base"):
        run(tmp_path, output="other")


def test_a_full_model_beside_an_adapter_counts(tmp_path: Path) -> None:
    adapter = make(tmp_path)
    save_model(tmp_path / "sft", 1)
    (adapter / "adapter_config.json").rename(tmp_path / "sft" / "adapter_config.json")
    plan = plan_fusion(str(tmp_path / "base"), str(tmp_path / "sft"), FusionConfig())
    assert plan.adapter is None
    assert list(plan.layout.headers) == [SINGLE]


def test_of_two_chat_templates_the_adapters_stays(tmp_path: Path) -> None:
    """In its tokenizer's configuration, as older versions save it; a file beside that would come first."""
    adapter = make(tmp_path)
    (adapter / "tokenizer.json").write_text("its own")
    (adapter / "tokenizer_config.json").write_text('{"chat_template": "its own"}')
    run(tmp_path)
    assert (tmp_path / "base" / "chat_template.jinja").exists()
    assert not (tmp_path / "out" / "chat_template.jinja").exists()
    assert "its own" in (tmp_path / "out" / "tokenizer_config.json").read_text()


def test_a_dry_run_counts_the_files_that_are_written(tmp_path: Path) -> None:
    make(tmp_path)
    plan = plan_fusion(str(tmp_path / "base"), str(tmp_path / "adapter"), FusionConfig(0.4))
    files = list((tmp_path / "base").glob("*.safetensors"))
    assert plan_record(plan, ResetConfig(), tmp_path / "out")["weight_files"] == len(files) > 1


def test_without_a_vocabulary_of_its_own_an_adapter_keeps_the_bases(tmp_path: Path) -> None:
    (make(tmp_path) / "special_tokens_map.json").write_text("{}")
    run(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "base" / name).read_bytes()
    assert (tmp_path / "out" / "special_tokens_map.json").read_text() == "{}"


def test_embeddings_are_tied_if_no_head_is_stored_and_the_flag_is_left_out(tmp_path: Path) -> None:
    file, base = make(tmp_path) / "adapter_model.safetensors", tmp_path / "base"
    name = "model.embed_tokens.weight"
    save_file(load_file(file) | {f"{STORED}{name}": torch.ones(64, 32)}, file)
    config = json.loads((base / "config.json").read_text())
    del config["tie_word_embeddings"]
    (base / "config.json").write_text(json.dumps(config))
    run(tmp_path)
    tensors = weights(base)
    del tensors["lm_head.weight"]
    for part in base.glob("model*"):
        part.unlink()
    set_weights(base, tensors)
    with pytest.raises(InputError, match=r"^--sft: expected embeddings left alone"):
        run(tmp_path, output="other")


def test_an_adapter_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    file = make(tmp_path) / "adapter_model.safetensors"
    run(tmp_path)
    tensors = load_file(file)
    save_file({name: tensor * 2 for name, tensor in tensors.items()}, file)
    run(tmp_path, output="second")
    a, b = (2 * tensors[f"{STORED}{Q}.lora_{side}.weight"] for side in "AB")
    base, output = weights(tmp_path / "base"), weights(tmp_path / "second")
    expected = reference(base[f"{Q}.weight"], a, b, 8 / 3, 0.4)
    assert np.array_equal(canonical_bits(output[f"{Q}.weight"].flatten()), expected)
