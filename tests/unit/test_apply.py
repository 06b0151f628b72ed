# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Whole checkpoints: the right weights, in the SFT checkpoint's own clothes."""

import json
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import INDEX, SINGLE, make_pair, save_model, set_weights, weights, write_safetensors
from digest_reference import digest_reference
from fusion_reference import bits_of, canonical_bits, fuse_reference
from transformers import AutoModelForCausalLM

from rejuv_plugin.checkpoint import apply, combine, pieces, plan_fusion, stream
from rejuv_plugin.config import FusionConfig


def run(base: Path, sft: Path, output: Path, alpha: float = 0.4) -> dict:
    return apply(plan_fusion(str(base), str(sft), FusionConfig(alpha)), output)


def assert_fused(base: dict, sft: dict, output: dict, alpha: float) -> None:
    assert list(output) == list(sft)
    for name, tensor in output.items():
        assert tensor.dtype == sft[name].dtype
        reference = fuse_reference(base[name].flatten(), sft[name].flatten(), alpha, tensor.dtype)
        assert np.array_equal(canonical_bits(tensor.flatten()), reference), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("max_shard_size", ["1GB", "20KB"], ids=["single", "sharded"])
def test_transformers_loads_the_reference(tmp_path: Path, tied: bool, max_shard_size: str, dtype: torch.dtype) -> None:
    base, sft = make_pair(tmp_path, tied=tied, max_shard_size=max_shard_size, dtype=dtype)
    output = tmp_path / "out"
    run(base, sft, output)
    assert len(list(sft.glob("*.safetensors"))) > 1 or max_shard_size == "1GB"
    assert_fused(weights(base), weights(sft), weights(output), 0.4)

    load = AutoModelForCausalLM.from_pretrained
    states = [load(path, dtype=dtype).state_dict() for path in (base, sft, output)]
    assert "lm_head.weight" in states[2]
    assert_fused(*states, 0.4)


def test_everything_but_the_weights_is_the_sft_checkpoints_own(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path, max_shard_size="20KB")
    (sft / "rejuvenation.json").write_text("of an earlier run")
    (sft / "optimizer.pt").write_bytes(b"state")
    (sft / "pytorch_model.bin").write_bytes(b"the same in pickle")
    (sft / "consolidated.safetensors").write_bytes(b"the same again")
    (sft / "checkpoint-10").mkdir()
    (sft / "additional_chat_templates").mkdir()
    (sft / "additional_chat_templates" / "tool.jinja").write_text("{{ tools }}")
    run(base, sft, tmp_path / "out")
    kept = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    kept |= {INDEX, "additional_chat_templates/tool.jinja"}
    for name in kept:
        assert (tmp_path / "out" / name).read_bytes() == (sft / name).read_bytes(), name
    shards = {path.name for path in sft.glob("model-*.safetensors")}
    written = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert written == kept | shards | {"rejuvenation.json"}
    assert not list(tmp_path.glob("*.tmp-*"))


def test_layouts_and_orders_may_differ(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", 0, dtype=torch.float32, max_shard_size="20KB")
    sft = save_model(tmp_path / "sft", 1)
    tensors = sorted(weights(sft).items(), reverse=True)
    write_safetensors(sft / SINGLE, tensors, order=[*range(3, len(tensors)), 1, 0, 2])
    run(base, sft, tmp_path / "out")
    assert_fused(weights(base), weights(sft), weights(tmp_path / "out"), 0.4)
    source, written = (sft / SINGLE).read_bytes(), (tmp_path / "out" / SINGLE).read_bytes()
    header = 8 + int.from_bytes(source[:8], "little")
    assert source[:header] == written[:header]
    assert len(source) == len(written)


@pytest.mark.parametrize(("alpha", "same_as"), [(0.0, "base"), (1.0, "sft")])
def test_alpha_0_and_1_give_the_inputs_bit_for_bit(tmp_path: Path, alpha: float, same_as: str) -> None:
    make_pair(tmp_path)
    for side in ("base", "sft"):
        tensors = weights(tmp_path / side)
        tensors["model.norm.weight"][:4] = torch.tensor([-0.0, float("nan"), float("inf"), 1e-40])
        set_weights(tmp_path / side, tensors)
    run(tmp_path / "base", tmp_path / "sft", tmp_path / "out", alpha)
    expected, got = weights(tmp_path / same_as), weights(tmp_path / "out")
    assert all(np.array_equal(bits_of(got[name].flatten()), bits_of(expected[name].flatten())) for name in got)


def test_tensors_larger_than_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combine, "_CHUNK_ELEMENTS", 30)
    monkeypatch.setattr(pieces, "ELEMENTS", 100)
    monkeypatch.setattr(stream, "_RUN_BYTES", 1000)
    base, sft = make_pair(tmp_path)
    run(base, sft, tmp_path / "out")
    assert_fused(weights(base), weights(sft), weights(tmp_path / "out"), 0.4)


@pytest.mark.parametrize("base_stores", ["embed", "head", "both"])
@pytest.mark.parametrize("sft_stores", ["embed", "head", "both"])
def test_tied_embeddings_may_be_stored_once_or_twice(tmp_path: Path, base_stores: str, sft_stores: str) -> None:
    embed, head = "model.embed_tokens.weight", "lm_head.weight"
    base, sft = make_pair(tmp_path, tied=True)
    tensors = {path: weights(path) for path in (base, sft)}
    for path, stores in ((base, base_stores), (sft, sft_stores)):
        tensors[path][head] = tensors[path][embed].clone()
        stored = dict(tensors[path])
        for name, which in ((embed, "head"), (head, "embed")):
            if stores == which:
                del stored[name]
        set_weights(path, stored)
    run(base, sft, tmp_path / "out")
    output = weights(tmp_path / "out")
    assert_fused(tensors[base], {name: tensors[sft][name] for name in output}, output, 0.4)
    assert set(output) == set(weights(sft))


def test_other_dtypes_are_copied_from_sft_and_listed(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    for path, ids in ((base, torch.arange(4)), (sft, torch.arange(4) + 1)):
        set_weights(path, weights(path) | {"model.position_ids": ids, "model.mask": torch.ones(2, dtype=torch.bool)})
    manifest = run(base, sft, tmp_path / "out")
    assert weights(tmp_path / "out")["model.position_ids"].tolist() == [1, 2, 3, 4]
    assert sorted(manifest["tensors"].pop("copied_names")) == ["model.mask", "model.position_ids"]
    assert manifest["tensors"] == {"fused": len(weights(sft)) - 2, "copied": 2}


def test_the_manifest_says_where_the_weights_come_from(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path, max_shard_size="20KB")
    returned = run(base, sft, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "rejuvenation.json").read_text())
    assert manifest == returned
    assert manifest["settings"] == {"fusion": {"alpha": 0.4}}
    for root, files in (
        (base, manifest["inputs"]["base"]["files"]),
        (sft, manifest["inputs"]["sft"]["files"]),
        (tmp_path / "out", manifest["outputs"]),
    ):
        for name, file in files.items():
            assert file == {"digest": digest_reference(root / name), "size": (root / name).stat().st_size}
    assert set(manifest["outputs"]) == set(manifest["inputs"]["sft"]["files"])
    assert manifest["inputs"]["sft"]["path"] == str(sft.resolve())
    assert manifest["parameters_fused"] == sum(t.numel() for t in weights(sft).values())

    def relative(x: dict) -> float:
        b = weights(base)
        moved = sum((x[n].double() - b[n].double()).square().sum() for n in b)
        return (moved / sum(t.double().square().sum() for t in b.values())).sqrt().item()

    drift = manifest["drift_from_base"]
    assert drift["sft"]["relative_l2"] == pytest.approx(relative(weights(sft)))
    assert drift["output"]["relative_l2"] == pytest.approx(relative(weights(tmp_path / "out")))
    groups = {"model.layers.0", "model.layers.1", "model.embed_tokens", "model.norm", "lm_head"}
    assert set(drift["sft"]["by_group"]) == groups


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    first, second = (run(base, sft, tmp_path / name) for name in ("one", "two"))
    assert first["outputs"] == second["outputs"]
    assert first["key"] == second["key"]
    assert first["key"] != run(base, sft, tmp_path / "three", 0.5)["key"]


def test_weights_that_are_not_finite_still_give_valid_json(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    tensors = weights(sft)
    tensors["model.norm.weight"][0] = float("nan")
    set_weights(sft, tensors)
    run(base, sft, tmp_path / "out")
    drift = json.loads((tmp_path / "out" / "rejuvenation.json").read_text())["drift_from_base"]["sft"]
    assert drift["relative_l2"] is None
    assert drift["by_group"]["model.norm"] is None
    assert drift["by_group"]["lm_head"] > 0


def test_parents_are_made_and_an_empty_output_is_used(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    run(base, sft, tmp_path / "new" / "deep" / "out")
    (tmp_path / "empty").mkdir()
    # A directory that a group writes in.
    (tmp_path / "empty").chmod(0o2775)
    run(base, sft, tmp_path / "empty")
    assert stat.S_IMODE((tmp_path / "empty").stat().st_mode) == 0o2775
    assert (tmp_path / "empty" / SINGLE).read_bytes() == (tmp_path / "new/deep/out" / SINGLE).read_bytes()


def test_a_hub_snapshot_of_symbolic_links(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    linked = tmp_path / "snapshots" / "abc"
    linked.mkdir(parents=True)
    for file in base.iterdir():
        (linked / file.name).symlink_to(file)
    run(linked, sft, tmp_path / "out")
    assert_fused(weights(base), weights(sft), weights(tmp_path / "out"), 0.4)


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    calls: list[tuple[str, int, int]] = []
    plan = plan_fusion(str(base), str(sft), FusionConfig())
    apply(plan, tmp_path / "out", progress=lambda *call: calls.append(call))
    assert {call[0] for call in calls} == {"write"}, "inputs are hashed as they are read"
    done = [call[1:] for call in calls]
    assert done == sorted(done)
    assert done[-1][0] == done[-1][1] > 0
    written = sum(path.stat().st_size for path in (tmp_path / "out").iterdir() if path.name != "rejuvenation.json")
    assert calls[-1][1] == written == plan.output_bytes


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_flag_that_config_json_leaves_out_agrees_with_any(tmp_path: Path, tied: bool) -> None:
    base, sft = make_pair(tmp_path, tied=tied)
    if tied:
        # Under its other name, where it is found only if the two are taken for one.
        tensors = weights(base)
        set_weights(base, tensors | {"lm_head.weight": tensors.pop("model.embed_tokens.weight")})
    expected = run(base, sft, tmp_path / "stated by both")["outputs"][SINGLE]
    for side in (sft, base):
        config = json.loads((side / "config.json").read_text())
        assert config.pop("tie_word_embeddings") is tied
        (side / "config.json").write_text(json.dumps(config))
        assert run(base, sft, tmp_path / f"left out by {side.name}")["outputs"][SINGLE] == expected
