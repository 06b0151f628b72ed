# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Parts of a checkpoint that are not fused: by pattern, rows of a grown vocabulary, heads that only SFT has."""

from pathlib import Path

import pytest
import torch
from checkpoints import make_pair, save_model, set_weights, weights
from test_apply import assert_fused

from rejuv_plugin.checkpoint import apply, combine, pieces, plan_fusion, plan_reset, read_inputs
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.errors import InputError
from rejuv_plugin.neurons.reset_set import Chosen, ResetSet

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def run(tmp_path: Path, **options: object) -> dict:
    made = plan_fusion(str(tmp_path / "base"), str(tmp_path / "sft"), FusionConfig(0.4, **options))
    return apply(made, tmp_path / "out")


def assert_parts(tmp_path: Path, kept: set[str]) -> None:
    base, sft, output = (weights(tmp_path / name) for name in ("base", "sft", "out"))
    assert output.keys() == sft.keys()
    for name in kept:
        assert torch.equal(output[name], sft[name]), name
    fused = [name for name in sft if name not in kept]
    assert fused
    assert_fused(*({name: side[name] for name in fused} for side in (base, sft, output)), 0.4)


@pytest.mark.parametrize(
    ("options", "left_out"),
    [
        ({"exclude_tensors": "lm_head.* *embed*"}, lambda name: name in (EMBED, HEAD)),
        ({"only_tensors": "*.layers.0.* lm_head.weight"}, lambda name: ".layers.0." not in name and name != HEAD),
        ({"only_tensors": "*.mlp.*", "exclude_tensors": "*.layers.1.*"}, lambda name: ".layers.0.mlp" not in name),
    ],
)
def test_patterns(tmp_path: Path, options: dict, left_out) -> None:
    make_pair(tmp_path)
    manifest = run(tmp_path, **options)
    kept = {name for name in weights(tmp_path / "sft") if left_out(name)}
    assert_parts(tmp_path, kept)
    assert set(manifest["tensors"]["left_out"]) == kept
    assert manifest["settings"]["fusion"] == {"alpha": 0.4} | options


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"only_tensors": "*.mpl.*"}, "--only-tensors"),
        ({"exclude_tensors": "x"}, "--exclude-tensors"),
        ({"exclude_tensors": "*"}, "--only-tensors"),
        ({"only_tensors": ""}, "--only-tensors"),
    ],
)
def test_patterns_that_miss(tmp_path: Path, options: dict, key: str) -> None:
    make_pair(tmp_path)
    with pytest.raises(InputError, match=rf"^{key}: expected patterns that "):
        run(tmp_path, **options)


def test_neurons_of_what_is_left_out_cannot_be_reset(tmp_path: Path) -> None:
    make_pair(tmp_path)
    name = "model.layers.0.mlp.down_proj"
    chosen = ResetSet("qwen2", {name: Chosen("column", 48, (1,))}, {}, {}, {})
    plan = plan_fusion(str(tmp_path / "base"), str(tmp_path / "sft"), FusionConfig(exclude_tensors="*.down_proj.*"))
    with pytest.raises(InputError, match=rf"^--reset-set: expected neurons of tensors that are fused, got {name}"):
        plan_reset(plan, chosen, 1.0, "--reset-set")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("elements", [1 << 18, 100, 64])
@pytest.mark.parametrize(("base_rows", "sft_rows"), [(64, 70), (70, 64)])
@pytest.mark.parametrize("tied", [False, True])
def test_other_numbers_of_rows(
    tmp_path: Path, tied: bool, base_rows: int, sft_rows: int, elements: int, compiled: bool, monkeypatch
) -> None:
    monkeypatch.setattr(pieces, "ELEMENTS", elements)
    monkeypatch.setattr(combine, "kernel", combine.kernel if compiled else lambda: None)
    save_model(tmp_path / "base", 0, tied=tied, vocab_size=base_rows)
    save_model(tmp_path / "sft", 1, tied=tied, vocab_size=sft_rows)
    manifest = run(tmp_path, grown_vocabulary="keep")
    base, sft, output = (weights(tmp_path / name) for name in ("base", "sft", "out"))
    rows = min(base_rows, sft_rows)
    for side in (base, sft, output):
        for name in (EMBED, HEAD) if not tied else (EMBED,):
            side[f"{name} shared"], side[f"{name} rest"] = side[name][:rows].clone(), side.pop(name)[rows:].clone()
    for name in (name for name in sft if name.endswith("rest")):
        assert torch.equal(output.pop(name), sft[name])
    assert_fused(base, {name: sft[name] for name in output}, output, 0.4)
    grown = {name: 6 for name in ((EMBED,) if tied else (EMBED, HEAD))} if sft_rows > base_rows else None
    assert manifest["tensors"].get("rows_kept") == grown
    plan = plan_fusion(str(tmp_path / "base"), str(tmp_path / "sft"), FusionConfig(0.4, grown_vocabulary="keep"))
    assert read_inputs(plan).base == {n: f["digest"] for n, f in manifest["inputs"]["base"]["files"].items()}


def test_other_shapes_are_refused_all_the_same(tmp_path: Path) -> None:
    save_model(tmp_path / "base", 0, intermediate_size=52)
    save_model(tmp_path / "sft", 1, vocab_size=70)
    with pytest.raises(InputError, match=r"^--base: expected shape"):
        run(tmp_path, grown_vocabulary="keep")


def test_a_value_head_is_kept(tmp_path: Path) -> None:
    make_pair(tmp_path)
    extra = {"v_head.summary.weight": torch.randn(1, 32), "v_head.summary.bias": torch.randn(1), "score": torch.ones(2)}
    set_weights(tmp_path / "sft", weights(tmp_path / "sft") | extra)
    manifest = run(tmp_path)
    assert_parts(tmp_path, set(extra))
    assert set(manifest["tensors"]["only_in_sft"]) == set(extra)


@pytest.mark.parametrize("name", ["mtp.layers.0.mlp.up_proj.weight", "mtp.fc.weight", "model.layers.2.eh_proj.weight"])
def test_what_transformers_does_not_save_may_be_in_the_base_alone(tmp_path: Path, name: str) -> None:
    """Multi-token prediction, of Qwen3-Next's kin and of DeepSeek's."""
    make_pair(tmp_path)
    set_weights(tmp_path / "base", weights(tmp_path / "base") | {name: torch.ones(2)})
    run(tmp_path)
    assert_parts(tmp_path, set())
    # What a model cannot do without is missed all the same.
    set_weights(tmp_path / "base", weights(tmp_path / "base") | {"model.mtprojector.weight": torch.ones(2)})
    with pytest.raises(InputError, match=r"^--sft: .*without model.mtprojector.weight"):
        run(tmp_path)


@pytest.mark.parametrize("side", ["base", "sft"])
def test_buffers_that_loaders_compute_may_be_stored_on_one_side(tmp_path: Path, side: str) -> None:
    """Rotary frequencies of Llama 2's time, causal masks of GPT-NeoX's: today's transformers does not save them."""
    make_pair(tmp_path)
    stored = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    stored |= {
        "model.layers.0.attention.bias": torch.ones(1, 1, 4, 4),
        "model.layers.0.attention.masked_bias": torch.tensor(-1e9),
    }
    set_weights(tmp_path / side, weights(tmp_path / side) | stored)
    run(tmp_path)
    assert_parts(tmp_path, set(stored) if side == "sft" else set())
    # A bias that is learned is a vector.
    set_weights(tmp_path / side, weights(tmp_path / side) | {"model.layers.0.attention.bias": torch.ones(4)})
    with pytest.raises(InputError, match=r"without model.layers.0.attention.bias"):
        run(tmp_path)


def test_a_missing_part_of_the_model_is_no_head(tmp_path: Path) -> None:
    make_pair(tmp_path)
    set_weights(tmp_path / "sft", weights(tmp_path / "sft") | {"model.layers.0.extra.weight": torch.ones(2)})
    with pytest.raises(InputError, match=r"^--base: .*without model.layers.0.extra.weight"):
        run(tmp_path)
    # Saved under another prefix, nothing of the base would be found: not a model that is all heads.
    set_weights(tmp_path / "sft", {f"policy.{name}": tensor for name, tensor in weights(tmp_path / "sft").items()})
    with pytest.raises(InputError):
        run(tmp_path)
