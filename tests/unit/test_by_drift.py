# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``rejuv alphas``: what moved furthest is found, and named so that ``apply`` understands it."""

import json
from pathlib import Path

import pytest
import torch
from checkpoints import make_pair, save_model, set_weights, snapshot, weights
from test_adapter import make as make_adapter
from test_cli import rejuv

from rejuv_plugin.checkpoint import apply, plan_fusion
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.loading.by_drift import by_layer, drift_of_each, furthest
from rejuv_plugin.ops.drift import Drift

FAR = ("model.layers.1.mlp.up_proj.weight", "model.layers.0.self_attn.v_proj.bias", "model.norm.weight")


@pytest.fixture
def ladder(tmp_path: Path) -> Path:
    """A base, and an SFT checkpoint that is a little off it, further in `FAR` and most in layer 1."""
    base = save_model(tmp_path / "base", 0)
    save_model(tmp_path / "sft", 1)
    generator = torch.Generator().manual_seed(0)
    moved = {}
    for name, tensor in weights(base).items():
        far = (5 + FAR.index(name) if name in FAR else 1) * (2 if ".layers.1." in name else 1)
        step = 0.001 * far * torch.randn(tensor.shape, generator=generator)
        moved[name] = (tensor.float() + step).bfloat16()
    set_weights(tmp_path / "sft", moved)
    return tmp_path


def alphas(ladder: Path, *more: str) -> int:
    return rejuv("alphas", "--base", str(ladder / "base"), "--sft", str(ladder / "sft"), *more)


def relative(ladder: Path, names: list[str]) -> float:
    base, sft = (torch.cat([weights(ladder / s)[n].double().flatten() for n in names]) for s in ("base", "sft"))
    return float((sft - base).norm() / base.norm())


@pytest.mark.parametrize("workers", [1, 3])
def test_drift_of_each_tensor(ladder: Path, workers: int) -> None:
    plan, seen = plan_fusion(str(ladder / "base"), str(ladder / "sft"), FusionConfig()), []
    drifts = drift_of_each(plan, workers, lambda phase, done, total: seen.append((done, total)))
    assert list(drifts) == [operation.name for operation in plan.fused]
    for name, drift in drifts.items():
        assert drift.relative == pytest.approx(relative(ladder, [name]), rel=1e-5)
    assert seen[-1][0] == seen[-1][1] == sum(t.nbytes for t in weights(ladder / "sft").values())
    for pattern, drift in by_layer(drifts).items():
        names = [name for name in drifts if name.startswith(pattern.removesuffix("*"))]
        assert len(names) == 12
        assert drift.relative == pytest.approx(relative(ladder, names), rel=1e-5)


def test_the_top_of_the_tensors_as_a_setting_that_apply_understands(ladder: Path, capsys) -> None:
    capsys.readouterr()
    assert alphas(ladder, "--above", "0.9", "--alpha", "0.3") == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    setting = out.strip()
    # 27 tensors, of which a tenth is 2.7; furthest first.
    names = [entry.removesuffix(":0.3") for entry in setting.split()]
    assert set(names) == set(FAR)
    assert names == sorted(FAR, key=lambda name: -relative(ladder, [name]))
    assert err.startswith("3 of 27 tensors: relative drift ")
    plan = plan_fusion(str(ladder / "base"), str(ladder / "sft"), FusionConfig(0.5, alpha_of=setting))
    assert {operation.name: operation.alpha for operation in plan.fused if operation.alpha != 0.5} == dict.fromkeys(
        FAR, 0.3
    )
    assert apply(plan, ladder / "out")["tensors"]["by_alpha"] == {"0.3": 3, "0.5": 24}


def test_layers_and_parts(ladder: Path, capsys) -> None:
    capsys.readouterr()
    assert alphas(ladder, "--above", "0.5", "--alpha", "0.125", "--of", "layer") == 0
    assert capsys.readouterr().out == "model.layers.1.*:0.125\n"
    assert (
        alphas(ladder, "--alpha", "0.3", "--only-tensors", "*.layers.0.*", "--exclude-tensors", "*.bias", "--json") == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert len(found["relative_drift"]) == 9
    assert all(".layers.0." in name and name.endswith(".weight") for name in found["relative_drift"])
    assert found["alpha_of"] == max(found["relative_drift"], key=found["relative_drift"].get) + ":0.3"


@pytest.mark.parametrize(
    ("above", "count", "expected"),
    [(0.7, 10, 3), (0.9, 10, 1), (0.9, 11, 2), (0.0, 4, 4), (0.999, 4, 1), (0.5, 1, 1), (0.8, 30, 6)],
)
def test_how_many_are_above_a_quantile(above: float, count: int, expected: int) -> None:
    drifts = {str(i): Drift(float(i), 1.0) for i in range(count)}
    assert furthest(drifts, above) == [str(i) for i in range(count - 1, count - 1 - expected, -1)]


def test_what_was_zero_in_the_base_is_not_ranked(ladder: Path, capsys) -> None:
    name = "model.layers.0.self_attn.k_proj.bias"
    set_weights(ladder / "base", weights(ladder / "base") | {name: torch.zeros(16, dtype=torch.bfloat16)})
    capsys.readouterr()
    assert alphas(ladder, "--alpha", "0.3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert name not in found["alpha_of"]
    assert found["relative_drift"][name] is None
    assert alphas(ladder, "--alpha", "0.3") == 0
    assert capsys.readouterr().err.endswith("; 1 all zero in the base, not ranked\n")


def test_both_copies_of_a_tied_embedding_are_named(tmp_path: Path, capsys) -> None:
    embed, head = "model.embed_tokens.weight", "lm_head.weight"
    for seed, side in enumerate(("base", "sft")):
        save_model(tmp_path / side, seed, tied=True)
        set_weights(tmp_path / side, (found := weights(tmp_path / side)) | {head: found[embed].clone()})
    capsys.readouterr()
    assert alphas(tmp_path, "--above", "0", "--alpha", "0.25") == 0
    setting = capsys.readouterr().out.strip()
    assert setting.endswith(f" {head}:0.25")
    plan = plan_fusion(str(tmp_path / "base"), str(tmp_path / "sft"), FusionConfig(alpha_of=setting))
    assert plan.alphas == {0.25: 27}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--above", "1"), "--above: expected a quantile"),
        (("--alpha", "2"), "--alpha: expected a number in [0, 1]"),
        (("--of", "head"), "--of: expected tensor or layer"),
        (("--of", "layer", "--only-tensors", "lm_head.*"), "--of: expected a model with numbered layers"),
        (("--only-tensors", "x"), "--only-tensors: expected patterns"),
    ],
)
def test_bad_input(tmp_path: Path, options: tuple, says: str, capsys) -> None:
    make_pair(tmp_path)
    before = snapshot(tmp_path)
    capsys.readouterr()
    assert alphas(tmp_path, *(() if "--alpha" in options else ("--alpha", "0.3")), *options) == 2
    assert capsys.readouterr().err.startswith(f"rejuv: {says}")
    assert snapshot(tmp_path) == before


def test_an_adapter_is_refused(tmp_path: Path, capsys) -> None:
    make_adapter(tmp_path)
    capsys.readouterr()
    paths = ("--base", str(tmp_path / "base"), "--sft", str(tmp_path / "adapter"))
    assert rejuv("alphas", *paths, "--alpha", "0.3") == 2
    assert capsys.readouterr().err.startswith("rejuv: --sft: expected a full checkpoint")
