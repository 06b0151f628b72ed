# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""TIES and DARE by mergekit's own functions, on the engine that writes fused checkpoints."""

from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import make_pair, save_model, set_weights, snapshot, weights
from fusion_reference import bits_of, round_to_bits, value_of
from test_adapter import make as make_adapter
from test_cli import rejuv
from test_reset import a_set, expected_masks

from rejuv_plugin.checkpoint import apply, combine, local, pieces, plan_fusion, plan_reset, stream
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.errors import InputError
from rejuv_plugin.loading import Values

ALPHA, DENSITY = 0.6, 0.25


def planned(base: Path, sft: Path, method: str, **options):
    fusion = FusionConfig(ALPHA, **{"method": method, "density": DENSITY} | options)
    return plan_fusion(str(base), str(sft), fusion)


def values(tensor: torch.Tensor) -> np.ndarray:
    return value_of(bits_of(tensor), tensor.dtype)


def test_without_mergekit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, sft = make_pair(tmp_path)
    monkeypatch.setattr("rejuv_plugin.checkpoint.plan.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^--method: expected mergekit, for ties, .*pip install 'rejuv-plugin\[merge"):
        planned(base, sft, "ties")


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"method": "slerp"}, "method"),
        ({"method": "ties", "noise": 0.1}, "method"),
        ({"method": "dare", "towards": "zero"}, "method"),
        ({"density": 0.0}, "density"),
        ({"density": 1.5}, "density"),
    ],
)
def test_bad_settings(options: dict, key: str) -> None:
    with pytest.raises(InputError, match=rf"^{key}: expected "):
        FusionConfig(**options)


class TestWithMergekit:
    @pytest.fixture(autouse=True)
    def _needs_it(self) -> None:
        pytest.importorskip("mergekit")

    def test_ties_keeps_the_largest_changes_of_each_tensor(self, tmp_path: Path) -> None:
        base, sft = make_pair(tmp_path, max_shard_size="20KB")
        manifest = apply(planned(base, sft, "ties"), tmp_path / "out")
        before, after, found = weights(base), weights(sft), weights(tmp_path / "out")
        for name in found:
            b, s = values(before[name]), values(after[name])
            changes = np.abs(s - b).flatten()
            kept = max(1, int(DENSITY * changes.size))
            last = np.sort(changes)[-kept]
            # Of those that are as large as the last one, any may be kept.
            near = (changes == last).reshape(s.shape)
            mixed = np.where(np.abs(s - b) > last, b + ALPHA * (s - b), b)
            same = bits_of(found[name]) == round_to_bits(mixed, torch.bfloat16)
            assert (same | near).all(), name
            assert abs(np.count_nonzero(values(found[name]) != b) - kept) <= 0.02 * changes.size + near.sum(), name
        assert manifest["settings"]["fusion"] == {"alpha": ALPHA, "method": "ties", "density": DENSITY}
        assert manifest["settings"]["mergekit"]

    def test_dare_drops_at_random_and_scales_up(self, tmp_path: Path) -> None:
        base, sft = make_pair(tmp_path, dtype=torch.float32)
        apply(planned(base, sft, "dare"), tmp_path / "out")
        before, after, found = weights(base), weights(sft), weights(tmp_path / "out")
        changed = total = 0
        for name in found:
            b, s = values(before[name]), values(after[name])
            mixed = b + ALPHA / DENSITY * (s - b).astype(np.float32).astype(np.float64)
            moved = bits_of(found[name]) != bits_of(before[name])
            assert np.array_equal(bits_of(found[name])[moved], round_to_bits(mixed, torch.float32)[moved]), name
            changed, total = changed + moved.sum(), total + moved.size
        assert changed / total == pytest.approx(DENSITY, abs=4 * np.sqrt(DENSITY * (1 - DENSITY) / total))

    @pytest.mark.parametrize("method", ["ties", "dare"])
    def test_pieces_threads_and_loaders_change_nothing(self, tmp_path: Path, method: str, monkeypatch) -> None:
        base, sft = make_pair(tmp_path, max_shard_size="20KB")
        plan = planned(base, sft, method)
        torch.manual_seed(7)
        apply(plan, tmp_path / "out")
        drawn = torch.rand(3)
        torch.manual_seed(7)
        assert torch.equal(torch.rand(3), drawn), "a process's own random numbers were used up"
        found = weights(tmp_path / "out")
        with Values(plan, 2) as loaded:
            assert all(torch.equal(loaded.tensor(name), found[name]) for name in found)
        monkeypatch.setattr(pieces, "ELEMENTS", 100)
        monkeypatch.setattr(stream, "_RUN_BYTES", 700)
        monkeypatch.setattr(combine, "_CHUNK_ELEMENTS", 30)
        apply(plan, tmp_path / "again", shards=local(3))
        again = weights(tmp_path / "again")
        assert all(torch.equal(again[name], found[name]) for name in found)

    def test_neurons_are_reset_after_it(self, tmp_path: Path) -> None:
        base, sft = make_pair(tmp_path)
        chosen = a_set(base)
        apply(planned(base, sft, "dare"), tmp_path / "out")
        apply(plan_reset(planned(base, sft, "dare"), chosen, 1.0, "--reset-set"), tmp_path / "reset")
        before, plain, reset = weights(base), weights(tmp_path / "out"), weights(tmp_path / "reset")
        for name, mask in expected_masks(base, chosen).items():
            assert torch.equal(reset[name], torch.where(mask, before[name], plain[name])), name
        assert any(not torch.equal(reset[name], plain[name]) for name in reset)

    def test_keys_know_method_density_and_seed(self, tmp_path: Path) -> None:
        base, sft = make_pair(tmp_path)
        options = [("ties", {}), ("dare", {}), ("dare", {"noise_seed": 1}), ("ties", {"density": 0.3})]
        made = [apply(planned(base, sft, m, **o), tmp_path / str(i))["key"] for i, (m, o) in enumerate(options)]
        assert len(set(made)) == len(options)

    def test_tied_copies_and_grown_rows(self, tmp_path: Path) -> None:
        embed, head = "model.embed_tokens.weight", "lm_head.weight"
        for seed, (side, rows) in enumerate((("base", 64), ("sft", 70))):
            save_model(tmp_path / side, seed, tied=True, vocab_size=rows)
            set_weights(tmp_path / side, (found := weights(tmp_path / side)) | {head: found[embed].clone()})
        apply(planned(tmp_path / "base", tmp_path / "sft", "dare", grown_vocabulary="keep"), tmp_path / "out")
        found, after = weights(tmp_path / "out"), weights(tmp_path / "sft")
        assert torch.equal(found[embed], found[head])
        assert torch.equal(found[embed][64:], after[embed][64:])
        assert not torch.equal(found[embed][:64], after[embed][:64])

    def test_the_command_and_an_adapter(self, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        make_adapter(tmp_path)
        before = snapshot(tmp_path)
        capsys.readouterr()
        base, output = str(tmp_path / "base"), str(tmp_path / "out")
        assert (
            rejuv("apply", "--base", base, "--sft", str(tmp_path / "adapter"), "--output", output, "--method", "ties")
            == 2
        )
        assert capsys.readouterr().err.startswith("rejuv: --method: expected nothing but fusion with a LoRA adapter")
        assert snapshot(tmp_path) == before
        sft = str(save_model(tmp_path / "sft", 5))
        base = str(save_model(tmp_path / "other", 6))
        options = ("--method", "dare", "--density", "0.5")
        assert rejuv("apply", "--base", base, "--sft", sft, "--output", output, *options) == 0
        assert "alpha 0.5 (method dare, density 0.5)" in capsys.readouterr().out
