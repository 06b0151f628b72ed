# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Tensors with an alpha of their own, and interpolation between two SFT checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import make_pair, save_model, snapshot, weights
from fusion_reference import bits_of, fuse_reference
from test_cli import rejuv
from test_reset import a_set, expected_masks

from rejuv_plugin.checkpoint import apply, at_alpha, combine, plan_fusion, plan_reset
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.errors import InputError
from rejuv_plugin.loading import Values

SETTING = "model.layers.1.*:0.25 *.k_proj.*:0.2 lm_head.weight:1 model.norm.*:0"


def alpha_by_hand(name: str) -> float:
    """What `SETTING` says, with 0.6 for all others."""
    if name == "model.norm.weight":
        return 0.0
    if name == "lm_head.weight":
        return 1.0
    return 0.2 if ".k_proj." in name else 0.25 if ".layers.1." in name else 0.6


def planned(base: Path, sft: Path, alpha_of: str = SETTING):
    return plan_fusion(str(base), str(sft), FusionConfig(0.6, alpha_of=alpha_of))


@pytest.mark.parametrize("compiled", [False, True], ids=["torch", "compiled"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_each_tensor_has_the_bits_of_its_own_alpha(tmp_path: Path, dtype, compiled: bool, monkeypatch) -> None:
    monkeypatch.setattr(combine, "kernel", combine.kernel if compiled else lambda: None)
    base, sft = make_pair(tmp_path, dtype=dtype, max_shard_size="20KB")
    plan = planned(base, sft)
    manifest = apply(plan, tmp_path / "out")
    before, after, found = weights(base), weights(sft), weights(tmp_path / "out")
    for name in found:
        reference = fuse_reference(before[name], after[name], alpha_by_hand(name), dtype)
        assert np.array_equal(bits_of(found[name]), reference), name
    counts = [sum(alpha_by_hand(name) == alpha for name in found) for alpha in (0.0, 0.2, 0.25, 0.6, 1.0)]
    assert list(manifest["tensors"]["by_alpha"].values()) == counts == [1, 4, 10, 11, 1]
    assert list(manifest["tensors"]["by_alpha"]) == ["0.0", "0.2", "0.25", "0.6", "1.0"]
    # As a loader in a worker gets them.
    with Values(plan) as values:
        assert all(torch.equal(values.tensor(name), found[name]) for name in found)


def test_a_reset_neuron_keeps_a_part_of_its_own_tensor_s_alpha(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    chosen = a_set(base)
    apply(plan_reset(planned(base, sft), chosen, 0.5, "--reset-set"), tmp_path / "out")
    before, after, found = weights(base), weights(sft), weights(tmp_path / "out")
    for name, mask in expected_masks(base, chosen).items():
        for part, share in ((mask, 0.5), (~mask, 1.0)):
            alpha = share * alpha_by_hand(name)
            reference = fuse_reference(before[name][part], after[name][part], alpha, torch.bfloat16)
            assert np.array_equal(bits_of(found[name][part]), reference), name


@pytest.mark.parametrize("settings", [{"alpha_of": SETTING}, {"towards": "zero", "noise": 0.1}, {}], ids=str)
def test_a_plan_at_another_alpha_is_the_plan_of_that_alpha(tmp_path: Path, settings: dict) -> None:
    base, sft = make_pair(tmp_path)
    chosen = a_set(base)

    def plan(alpha: float):
        return plan_reset(plan_fusion(str(base), str(sft), FusionConfig(alpha, **settings)), chosen, 0.5, "--reset-set")

    assert at_alpha(plan(0.6), 0.3) == plan(0.3) != plan(0.6)


def test_the_content_key_covers_it_and_older_keys_stay(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    made = [apply(planned(base, sft, text), tmp_path / str(i)) for i, text in enumerate(("", SETTING, "*:0.6"))]
    assert len({manifest["key"] for manifest in made}) == 3
    assert made[0]["settings"]["fusion"] == {"alpha": 0.6}
    assert "by_alpha" not in made[0]["tensors"]
    assert made[1]["settings"]["fusion"] == {"alpha": 0.6, "alpha_of": SETTING}


@pytest.mark.parametrize("text", ["0.3", "*.k_proj.*", "*.k_proj.*:", ":0.3", "*:1.5", "*:nan", "*:0.3 *.q_proj.*:x"])
def test_a_setting_that_cannot_be_read(text: str) -> None:
    with pytest.raises(InputError, match=r"^alpha_of: expected PATTERN:ALPHA, .*Fix: as in"):
        FusionConfig(alpha_of=text)


def test_patterns_that_miss_what_is_fused(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=r"^--alpha-of: expected patterns that match .*'\*\.c_attn\.\*'.*Fix: see"):
        planned(base, sft, "*.k_proj.*:0.2 *.c_attn.*:0.3")
    left_out = FusionConfig(alpha_of="lm_head.*:0.2", exclude_tensors="lm_head.*")
    with pytest.raises(InputError, match=r"^rejuvenation\.fusion\.alpha_of: expected .* which are fused, got 'lm_head"):
        plan_fusion(str(base), str(sft), left_out, fusion_key="rejuvenation.fusion.")
    assert snapshot(tmp_path) == before


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    base, sft = make_pair(tmp_path)
    paths = ("--base", str(base), "--sft", str(sft), "--output", str(tmp_path / "out"))
    assert rejuv("apply", *paths, "--alpha-of", "*.k_proj.weight:0.25", "--dry-run", "--json") == 0
    names = [f"model.layers.{layer}.self_attn.k_proj.weight:0.25" for layer in (0, 1)]
    assert json.loads(capsys.readouterr().out)["alpha_of"] == names
    assert rejuv("apply", *paths, "--alpha-of", "*.k_proj.weight:0.25") == 0
    assert "alpha 0.5 (of 2 tensors 0.25)" in capsys.readouterr().out
    assert rejuv("apply", *paths, "--alpha-of", "k_proj") == 2
    assert capsys.readouterr().err.startswith("rejuv: --alpha-of: expected PATTERN:ALPHA")


def test_between_two_sft_checkpoints_of_one_base(tmp_path: Path) -> None:
    """WiSE-FT (arXiv 2109.01903) is the same formula: with two SFT checkpoints nothing else is different."""
    one, other = (save_model(tmp_path / name, seed) for seed, name in enumerate(("sft1", "sft2"), 1))
    apply(plan_fusion(str(one), str(other), FusionConfig(0.3)), tmp_path / "out")
    first, second, found = (weights(tmp_path / name) for name in ("sft1", "sft2", "out"))
    for name in found:
        reference = fuse_reference(first[name], second[name], 0.3, torch.bfloat16)
        assert np.array_equal(bits_of(found[name]), reference), name
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()
