# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Shrink-and-perturb: noise that is known from an element's place, and whole checkpoints against numpy."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import edit_json, make_pair, save_model, set_weights, snapshot, weights
from fusion_reference import bits_of, round_to_bits, value_of
from scipy import special, stats
from test_adapter import make as make_adapter
from test_cli import rejuv
from test_reset import a_set, expected_masks

from rejuv_plugin.checkpoint import apply, combine, local, pieces, plan_fusion, plan_reset, stream
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.errors import InputError
from rejuv_plugin.loading import Values
from rejuv_plugin.ops import noise
from rejuv_plugin.ops.noise import normal

FRESH = 0.02
"""Qwen2's initializer_range."""


def test_noise_is_the_same_however_it_is_cut() -> None:
    whole = normal(3, "a.weight", 0, 10_000)
    for first, count in ((0, 1), (1, 1), (5, 3), (4_097, 5_903), (9_999, 1)):
        assert np.array_equal(normal(3, "a.weight", first, count), whole[first : first + count])
    # Past 2 ** 64, too: no counter runs over.
    assert np.array_equal(normal(0, "a", 2**66 + 1, 7), normal(0, "a", 2**66, 8)[1:])


def test_noise_has_these_bits_on_every_machine() -> None:
    digest = hashlib.sha256(normal(1, "model.norm.weight", 7, 100_000).astype("<f8").tobytes()).hexdigest()
    assert digest[:16] == "0d7067e059c14386"


def test_noise_is_normal_and_streams_are_independent() -> None:
    one, other_seed, other_name = normal(0, "a", 0, 300_000), normal(1, "a", 0, 300_000), normal(0, "b", 0, 300_000)
    for x in (one, other_seed, other_name, one[::4], np.abs(one) * np.sign(other_name)):
        assert stats.kstest(x, "norm").pvalue > 1e-3
    pairs = ((one, other_seed), (one, other_name), (one[:-1], one[1:]), (one[:-4], one[4:]))
    assert max(abs(np.corrcoef(x, y)[0, 1]) for x, y in pairs) < 5 / np.sqrt(300_000)


def test_the_inverse_of_the_distribution_function() -> None:
    q = np.random.default_rng(0).uniform(-0.5, 0.5, 200_000)
    tails = 10.0 ** np.random.default_rng(1).uniform(-15, -1, 200_000)
    ends = np.array([0.425, -0.425, np.nextafter(0.425, 1), 0.5 - 2.0**-53, 2.0**-53 - 0.5, 0.0])
    for x in (q, 0.5 - tails, tails - 0.5, ends):
        # Exact arguments: next to 1 float64's steps are too coarse for a reference.
        expected = np.copysign(special.ndtri(0.5 - np.abs(x)), x)
        np.testing.assert_allclose(noise._from_centred(x), expected, rtol=2e-15, atol=1e-15)
    np.testing.assert_allclose(noise._log(tails), np.log(tails), rtol=5e-16)


def planned(base: Path, sft: Path, alpha: float = 0.6, **options):
    return plan_fusion(str(base), str(sft), FusionConfig(alpha, **options))


def expected_values(name: str, base: torch.Tensor, sft: torch.Tensor, towards: str, level: float) -> np.ndarray:
    """In float64, before the rounding to storage: numpy and the settings alpha 0.6, noise_seed 5."""
    b, s = (value_of(bits_of(x), x.dtype).astype(np.float64) for x in (base, sft))
    if sft.ndim < 2:
        return s if towards == "zero" else 0.6 * s + (1 - 0.6) * b
    drawn = normal(5, name, 0, s.size).reshape(s.shape)
    return 0.6 * s + ((1 - 0.6) * b if towards == "base" else 0.0) + (level * FRESH) * drawn


@pytest.mark.parametrize(("towards", "level"), [("zero", 0.5), ("base", 0.5), ("zero", 0.0)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_whole_checkpoints(tmp_path: Path, dtype, towards: str, level: float, monkeypatch) -> None:
    base, sft = make_pair(tmp_path, dtype=dtype, max_shard_size="20KB")
    options = {"towards": towards, "noise": level, "noise_seed": 5}
    plan = planned(base, sft, **options)
    manifest = apply(plan, tmp_path / "out")
    before, after, found = weights(base), weights(sft), weights(tmp_path / "out")
    for name in found:
        reference = round_to_bits(expected_values(name, before[name], after[name], towards, level), dtype)
        assert np.array_equal(bits_of(found[name]), reference), name
    # As a loader in a worker gets them; and in other pieces, by other numbers of threads.
    with Values(plan) as values:
        assert all(torch.equal(values.tensor(name), found[name]) for name in found)
    monkeypatch.setattr(pieces, "ELEMENTS", 100)
    monkeypatch.setattr(stream, "_RUN_BYTES", 700)
    monkeypatch.setattr(combine, "_CHUNK_ELEMENTS", 30)
    apply(plan, tmp_path / "again", shards=local(3))
    again = weights(tmp_path / "again")
    assert all(torch.equal(again[name], found[name]) for name in found)
    assert manifest["settings"]["fusion"] == {"alpha": 0.6} | {
        key: value for key, value in options.items() if value != getattr(FusionConfig(), key)
    }


def test_the_key_knows_seed_and_level(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    options = [{}, {"noise": 0.1}, {"noise": 0.2}, {"noise": 0.1, "noise_seed": 1}, {"towards": "zero"}]
    made = [apply(planned(base, sft, **some), tmp_path / str(i))["key"] for i, some in enumerate(options)]
    assert len(set(made)) == len(options)


@pytest.mark.parametrize("omega", [1.0, 0.25])
def test_neurons_are_reset_after_it_in_the_same_rounding(tmp_path: Path, omega: float) -> None:
    base, sft = make_pair(tmp_path)
    chosen = a_set(base)
    plan = planned(base, sft, towards="zero", noise=0.5, noise_seed=5)
    apply(plan_reset(plan, chosen, omega, "--reset-set"), tmp_path / "out")
    before, after, found = weights(base), weights(sft), weights(tmp_path / "out")
    for name, mask in expected_masks(base, chosen).items():
        mixed = expected_values(name, before[name], after[name], "zero", 0.5)
        origin = value_of(bits_of(before[name]), torch.bfloat16)
        reset = (1 - omega) * mixed + (1.0 - (1 - omega)) * origin
        reference = round_to_bits(np.where(mask.numpy(), reset, mixed), torch.bfloat16)
        assert np.array_equal(bits_of(found[name]), reference), name


def test_both_copies_of_a_tied_embedding_are_one(tmp_path: Path) -> None:
    embed, head = "model.embed_tokens.weight", "lm_head.weight"
    for seed, side in enumerate(("base", "sft")):
        save_model(tmp_path / side, seed, tied=True)
        tensors = weights(tmp_path / side)
        set_weights(tmp_path / side, tensors | {head: tensors[embed].clone()})
    base, sft = tmp_path / "base", tmp_path / "sft"
    apply(planned(base, sft, noise=0.5), tmp_path / "out")
    found = weights(tmp_path / "out")
    assert torch.equal(found[embed], found[head])
    assert not torch.equal(found[embed], weights(sft)[embed])
    with pytest.raises(InputError, match=r"^--alpha-of: expected one alpha for lm_head\.weight and model\.embed"):
        planned(base, sft, alpha_of="lm_head.*:0.2")
    planned(base, sft, alpha_of="lm_head.*:0.2 *embed*:0.2")


@pytest.mark.parametrize("entry", [None, "wide", 0.0])
def test_a_model_that_does_not_say_how_fresh_weights_are(tmp_path: Path, entry: object) -> None:
    base, sft = make_pair(tmp_path)
    edit_json(sft / "config.json", initializer_range=entry)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=r"^--noise: expected initializer_range.* in .*config\.json, got"):
        planned(base, sft, noise=0.1)
    assert snapshot(tmp_path) == before
    planned(base, sft, towards="zero")


def test_an_alpha_of_what_keeps_its_bits_is_refused(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    with pytest.raises(InputError, match=r"^--alpha-of: expected patterns that match tensors which are fused"):
        planned(base, sft, towards="zero", alpha_of="model.norm.weight:0.3")
    plan = planned(base, sft, towards="zero", alpha_of="*.layers.0.*:0.3")
    assert {op.alpha for op in plan.fused if len(op.sft.shape) < 2} == {1.0}


@pytest.mark.parametrize(("options", "key"), [({"noise": 0.1}, "noise"), ({"towards": "zero"}, "towards")])
def test_an_adapter_is_refused(tmp_path: Path, options: dict, key: str) -> None:
    make_adapter(tmp_path)
    with pytest.raises(InputError, match=rf"^--{key}: expected nothing but fusion with a LoRA adapter"):
        planned(tmp_path / "base", tmp_path / "adapter", **options)


@pytest.mark.parametrize(("option", "value"), [("--noise", "-0.1"), ("--noise", "inf"), ("--towards", "SFT")])
def test_bad_settings(tmp_path: Path, option: str, value: str, capsys: pytest.CaptureFixture) -> None:
    make_pair(tmp_path)
    paths = ("--base", str(tmp_path / "base"), "--sft", str(tmp_path / "sft"), "--output", str(tmp_path / "out"))
    capsys.readouterr()
    assert rejuv("apply", *paths, option, value) == 2
    assert capsys.readouterr().err.startswith(f"rejuv: {option}: expected ")
    assert rejuv("apply", *paths, "--towards", "zero", "--noise", "0.1", "--alpha", "0.8") == 0
    assert "alpha 0.8 (towards zero, noise 0.1)" in capsys.readouterr().out
