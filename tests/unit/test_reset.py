# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Whole checkpoints with neurons reset: only their rows and columns change, and by how much."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import make, shapes_of
from checkpoints import make_pair, save_model, snapshot, weights
from fusion_reference import bits_of, fuse_reference

from rejuv_plugin.checkpoint import apply, combine, pieces, plan_fusion, plan_reset
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.errors import InputError
from rejuv_plugin.neurons.modules import modules_of
from rejuv_plugin.neurons.reset_set import Chosen, ResetSet
from rejuv_plugin.ops.reset import fuse_and_reset, reset_alpha


def same_bits(ours: torch.Tensor, theirs: torch.Tensor) -> np.ndarray:
    return bits_of(ours) == bits_of(theirs)


def a_set(base: Path, share: float = 0.3, seed: int = 0) -> ResetSet:
    """A random set of the checkpoint's neurons; every other module has none."""
    config = json.loads((base / "config.json").read_text())
    modules = modules_of(config, {name: tuple(t.shape) for name, t in weights(base).items()}, "--base")
    generator = torch.Generator().manual_seed(seed)
    chosen = {}
    for i, m in enumerate(modules):
        drawn = (torch.rand(m.count, generator=generator) < share).nonzero().flatten().tolist()
        chosen[m.name] = Chosen(m.kind, m.count, tuple(drawn) if i % 2 == 0 or share == 1 else ())
    return ResetSet(config["model_type"], chosen)


def expected_masks(base: Path, chosen: ResetSet) -> dict[str, torch.Tensor]:
    masks = {name: torch.zeros(t.shape, dtype=torch.bool) for name, t in weights(base).items()}
    for name, c in chosen.modules.items():
        for i in c.indices:
            if c.kind == "column":
                masks[f"{name}.weight"][:, i] = True
                continue
            masks[f"{name}.weight"][i, :] = True
            if f"{name}.bias" in masks:
                masks[f"{name}.bias"][i] = True
    return masks


def run(base: Path, sft: Path, output: Path, chosen: ResetSet | None = None, alpha: float = 0.4, omega: float = 1.0):
    plan = plan_fusion(str(base), str(sft), FusionConfig(alpha))
    plan = plan_reset(plan, chosen, omega, "--reset-set") if chosen else plan
    return apply(plan, output), weights(output)


@pytest.mark.parametrize("compiled", [False, True], ids=["torch", "compiled"])
@pytest.mark.parametrize("chunk", [None, 7, 100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_only_the_rows_and_columns_of_the_set_change(
    tmp_path: Path, dtype: torch.dtype, chunk: int | None, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(combine, "kernel", combine.kernel if compiled else lambda: None)
    if chunk:
        monkeypatch.setattr(pieces, "ELEMENTS", chunk)
        monkeypatch.setattr(combine, "_CHUNK_ELEMENTS", max(1, chunk // 3))
    options = {"hidden_size": 8, "intermediate_size": 12} if chunk else {}
    base, sft = make_pair(tmp_path, dtype=dtype, max_shard_size="20KB", **options)
    chosen = a_set(base)
    masks = expected_masks(base, chosen)
    _, fused = run(base, sft, tmp_path / "fused")
    manifest, reset = run(base, sft, tmp_path / "reset", chosen)
    originals = weights(base)
    changed = 0
    for name, mask in masks.items():
        assert same_bits(reset[name], originals[name])[mask.numpy()].all(), name
        assert same_bits(reset[name], fused[name])[~mask.numpy()].all(), name
        changed += int((~same_bits(reset[name], fused[name])).sum())
    assert changed > 100
    assert manifest["reset"]["parameters"] == sum(int(mask.sum()) for mask in masks.values())
    assert any(masks[name].any() for name in masks if name.endswith("bias"))


def test_an_omega_between_is_one_rounding_of_the_real_value(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    chosen = a_set(base)
    _, reset = run(base, sft, tmp_path / "out", chosen, alpha=0.5, omega=0.25)
    before, after = weights(base), weights(sft)
    for name, mask in expected_masks(base, chosen).items():
        # 0.25 * base + 0.75 * (0.5 * sft + 0.5 * base), all exact in binary
        reference = fuse_reference(before[name][mask], after[name][mask], 0.375, torch.bfloat16)
        assert np.array_equal(bits_of(reset[name][mask]), reference), name
    # Rounding the fusion first, as bf16 arithmetic would, is another result.
    name, mask = next((n, m) for n, m in expected_masks(base, chosen).items() if m.sum() > 100)
    twice = 0.25 * before[name][mask].double() + 0.75 * (0.5 * (before[name] + after[name]))[mask].double()
    assert not same_bits(twice.bfloat16(), reset[name][mask]).all()


def test_nothing_reset_is_fusion(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    _, fused = run(base, sft, tmp_path / "fused")
    for number, (chosen, omega) in enumerate(((a_set(base, share=0.0), 1.0), (a_set(base), 0.0))):
        _, reset = run(base, sft, tmp_path / f"out{number}", chosen, omega=omega)
        assert all(same_bits(reset[name], fused[name]).all() for name in fused)


def test_everything_reset_is_the_base_on_all_covered_modules(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    manifest, reset = run(base, sft, tmp_path / "out", a_set(base, share=1.0))
    originals, trained = weights(base), weights(sft)
    covered = {name for name in reset if "_proj." in name}
    assert len(covered) == 2 * (7 + 3)
    for name in reset:
        assert same_bits(reset[name], originals[name]).all() == (name in covered), name
        assert not same_bits(reset[name], trained[name]).all()
    assert manifest["reset"]["share"] == 1.0


def test_rows_of_a_fused_projection(tmp_path: Path) -> None:
    for side, seed in (("base", 0), ("sft", 1)):
        make("phi3", seed).save_pretrained(tmp_path / side)
    base, sft = tmp_path / "base", tmp_path / "sft"
    path = "model.layers.1.self_attn.qkv_proj"
    chosen = ResetSet("phi3", {f"{path}:k": Chosen("row", 16, (0, 5)), f"{path}:v": Chosen("row", 16, (15,))})
    _, fused = run(base, sft, tmp_path / "fused")
    _, reset = run(base, sft, tmp_path / "out", chosen)
    rows = (~same_bits(reset[f"{path}.weight"], fused[f"{path}.weight"])).any(1).nonzero()[0].tolist()
    assert rows == [32, 37, 63]
    assert same_bits(reset[f"{path}.weight"], weights(base)[f"{path}.weight"])[rows].all()
    assert all(same_bits(reset[n], fused[n]).all() for n in fused if n != f"{path}.weight")
    assert set(shapes_of(make("phi3"))) >= set(reset)


@pytest.mark.parametrize("variant", ["qwen3-moe", "mixtral"])
def test_neurons_of_experts(tmp_path: Path, variant: str) -> None:
    for side, seed in (("base", 0), ("sft", 1)):
        make(variant, seed).save_pretrained(tmp_path / side)
    base, sft = tmp_path / "base", tmp_path / "sft"
    chosen = a_set(base)
    masks = expected_masks(base, chosen)
    _, fused = run(base, sft, tmp_path / "fused")
    _, reset = run(base, sft, tmp_path / "reset", chosen)
    originals = weights(base)
    assert sum(".experts." in name and bool(mask.any()) for name, mask in masks.items()) > 10
    for name, mask in masks.items():
        assert same_bits(reset[name], originals[name])[mask.numpy()].all(), name
        assert same_bits(reset[name], fused[name])[~mask.numpy()].all(), name


def test_the_manifest_and_the_content_key_know_the_set(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    chosen = a_set(base)
    plain, _ = run(base, sft, tmp_path / "plain")
    manifest, _ = run(base, sft, tmp_path / "one", chosen)
    again, _ = run(base, sft, tmp_path / "two", ResetSet(chosen.model_type, chosen.modules, {"found": "otherwise"}))
    keys = {plain["key"], manifest["key"]}
    keys |= {run(base, sft, tmp_path / "omega", chosen, omega=0.5)[0]["key"]}
    keys |= {run(base, sft, tmp_path / "seed", a_set(base, seed=1))[0]["key"]}
    assert len(keys) == 4
    assert again["key"] == manifest["key"]
    assert "reset" not in plain
    assert manifest["settings"]["reset"] == {"omega": 1.0, "set": chosen.digest}
    record = manifest["reset"]
    neurons = {name: len(c.indices) for name, c in chosen.modules.items()}
    assert record["neurons"] == sum(neurons.values())
    assert set(record["share_by_layer"]) == {"model.layers.0", "model.layers.1"}
    name = "model.layers.0.self_attn.q_proj"
    assert record["share_by_module"][name] == neurons[name] / 32 > 0


def test_a_set_of_another_model_is_refused(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    other = a_set(save_model(tmp_path / "other", 2, intermediate_size=56))
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=r"^--reset-set: expected neurons of this model, which has 48 rows"):
        run(base, sft, tmp_path / "out", other)
    assert snapshot(tmp_path) == before


def test_reset_as_arithmetic() -> None:
    generator = torch.Generator().manual_seed(0)
    base, sft = (torch.randn(50, 40, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(50, 40, generator=generator) < 0.3
    for alpha, omega in ((0.4, 0.3), (0.0, 0.5), (1.0, 0.5), (0.7, 1.0), (0.7, 0.0)):
        fused = alpha * sft + (1 - alpha) * base
        expected = torch.where(mask, omega * base + (1 - omega) * fused, fused)
        found = fuse_and_reset(base, sft, alpha, omega, mask, torch.float64)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)
    assert reset_alpha(0.4, 1.0) == 0.0
    assert reset_alpha(0.4, 0.0) == 0.4


@pytest.mark.parametrize("omega", [-0.1, 1.1, float("nan")])
def test_an_omega_outside_its_range(omega: float) -> None:
    x = torch.zeros(1)
    with pytest.raises(ValueError) as caught:
        fuse_and_reset(x, x, 0.5, omega, torch.ones(1, dtype=torch.bool), torch.float32)
    assert "omega" in str(caught.value)


def test_nan_of_the_other_side_does_not_spread() -> None:
    base, sft = torch.tensor([1.0, float("nan")]), torch.tensor([float("nan"), 2.0])
    found = fuse_and_reset(base, sft, 1.0, 1.0, torch.tensor([True, False]), torch.float32)
    assert found.tolist() == [1.0, 2.0]
