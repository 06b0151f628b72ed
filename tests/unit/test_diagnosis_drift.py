# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How far and where SFT moved the weights, of one checkpoint and along a ladder."""

from pathlib import Path

import pytest
import torch
from checkpoints import save_model, set_weights, weights

from rejuv_plugin.checkpoint import read_checkpoint
from rejuv_plugin.diagnose import drift
from rejuv_plugin.diagnose.verdict import judge
from rejuv_plugin.ops.bootstrap import Estimate

CPU = torch.device("cpu")


# Three checkpoints of one architecture whose steps are known.
@pytest.fixture
def ladder(tmp_path: Path) -> list[Path]:
    paths = [save_model(tmp_path / f"{i}", i, dtype=torch.float32) for i in range(4)]
    return paths


def flat(path: Path, only: str = "") -> torch.Tensor:
    return torch.cat([t.double().reshape(-1) for name, t in sorted(weights(path).items()) if only in name])


def test_drift_and_directions_of_a_ladder(ladder: list[Path]) -> None:
    base, *steps = (read_checkpoint(str(path), "--sft") for path in ladder)
    found = drift.moved(base, steps, 2)
    b, first, second, third = map(flat, ladder)
    assert found.numbers["drift"].value == pytest.approx(float((third - b).norm() / b.norm()))
    one, two = second - first, third - second
    assert found.numbers["update_cosine"].value == pytest.approx(float(one @ two / one.norm() / two.norm()))
    sizes = (third - b).square().sort(descending=True).values
    assert found.numbers["drift_spikes"].value == pytest.approx(
        float(sizes[: len(sizes) // 100].sum() / sizes.sum()), rel=5e-3
    )
    for i in range(2):
        of_layer = [flat(path, f"layers.{i}.") for path in (ladder[0], ladder[3])]
        expected = float((of_layer[1] - of_layer[0]).norm() / of_layer[0].norm())
        assert found.layers["drift"][i] == pytest.approx(expected)
    grid = found.modules["drift"]
    assert grid["rows"] == ["model.embed_tokens", "0", "1", "lm_head", "model.norm"]
    assert grid["columns"][-1] == "whole"
    row, column = grid["rows"].index("1"), grid["columns"].index("self_attn.q_proj")
    ours, theirs = (flat(path, "layers.1.self_attn.q_proj") for path in (ladder[0], ladder[3]))
    assert grid["values"][row][column] == pytest.approx(float((theirs - ours).norm() / ours.norm()))
    assert grid["values"][row][-1] is None


def test_what_was_not_trained_is_no_sparse_change(ladder: list[Path]) -> None:
    """As after LoRA on two projections."""
    start, draw = weights(ladder[0]), torch.Generator().manual_seed(0)
    trained = ("q_proj", "v_proj")
    changes = {
        name: torch.randn(t.shape, generator=draw) for name, t in start.items() if any(t in name for t in trained)
    }
    set_weights(ladder[1], {name: t + 1e-3 * changes.get(name, 0) for name, t in start.items()})
    base, sft = (read_checkpoint(str(path), "--sft") for path in ladder[:2])
    found = drift.moved(base, [base, sft], 2)
    sizes = (flat(ladder[1]) - flat(ladder[0])).square()
    sizes = sizes[sizes > 0].sort(descending=True).values
    share = float(sizes[: len(sizes) // 100].sum() / sizes.sum())
    assert found.numbers["drift_spikes"].value == pytest.approx(share, rel=0.02)
    assert share < 0.12
    assert found.numbers["drift_changed"].value == pytest.approx(1, abs=1e-3), "of what was trained"
    grid = found.modules["drift_spikes"]
    assert grid["values"][grid["rows"].index("1")][grid["columns"].index("self_attn.o_proj")] is None


@pytest.mark.parametrize("saved", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("size", "judged"), [(1e-4, True), (1e-5, False), (5e-6, False), (2e-6, False)])
def test_the_rounding_of_weights_is_no_sign(tmp_path: Path, size: float, judged: bool, saved: torch.dtype) -> None:
    """A small normally distributed change of weights in bfloat16 is sparse, whatever SFT did, and however saved."""
    draw, paths = torch.Generator().manual_seed(0), [save_model(tmp_path / f"{i}", 0) for i in range(2)]
    shapes = {name: t.shape for name, t in weights(paths[0]).items()}
    start = {name: (0.02 * torch.randn(shape, generator=draw)).bfloat16() for name, shape in shapes.items()}
    moved = {name: (t + size * torch.randn(t.shape, generator=draw)).bfloat16() for name, t in start.items()}
    for path, values in zip(paths, (start, moved), strict=True):
        set_weights(path, {name: t.to(saved) for name, t in values.items()})
    base, sft = (read_checkpoint(str(path), "--sft") for path in paths)
    numbers = drift.moved(base, [base, sft], 2).numbers
    changed = torch.cat([(moved[name] != t).reshape(-1) for name, t in start.items()]).double().mean()
    assert numbers["drift_changed"].value == pytest.approx(float(changed), rel=0.05), "of norms that changed"
    verdict = judge(numbers | {"entropy": Estimate(0.6, (0.5, 0.7))})
    assert verdict.level == "ready"
    assert ("drift_spikes" in {reason.signal for reason in verdict.reasons}) == judged
    assert ("drift_spikes" in {each.signal for each in verdict.not_judged}) != judged
    assert numbers["drift_spikes"].value > 0.25 or judged


def test_the_base_is_the_beginning_of_a_ladder(ladder: list[Path]) -> None:
    base, first, second = (read_checkpoint(str(path), "--sft") for path in ladder[:3])
    assert drift.moved(base, [base, first], 2).numbers["update_cosine"] is None
    b, one, two = map(flat, ladder[:3])
    found = drift.moved(base, [base, first, second], 2).numbers["update_cosine"].value
    assert found == pytest.approx(float(torch.nn.functional.cosine_similarity(one - b, two - one, dim=0)))


def test_steps_of_one_direction_and_of_opposite_ones(ladder: list[Path]) -> None:
    start = weights(ladder[0])
    for path, times in zip(ladder[1:], (1, 3, 2), strict=True):
        set_weights(path, {name: t + times for name, t in start.items()})
    base, *steps = (read_checkpoint(str(path), "--sft") for path in ladder)
    assert drift.moved(base, [base, *steps[:2]], 2).numbers["update_cosine"].value == pytest.approx(1, abs=1e-6)
    assert drift.moved(base, steps, 2).numbers["update_cosine"].value == pytest.approx(-1, abs=1e-6)


def test_tied_embeddings_and_grown_vocabularies_count_once(tmp_path: Path) -> None:
    base = read_checkpoint(str(save_model(tmp_path / "base", 0, tied=True)), "--base")
    grown = read_checkpoint(str(save_model(tmp_path / "sft", 1, tied=True, vocab_size=80)), "--sft")
    found = drift.moved(base, [base, grown], 2)
    ours, theirs = (weights(tmp_path / side)["model.embed_tokens.weight"].double() for side in ("base", "sft"))
    grid = found.modules["drift"]
    assert grid["rows"] == ["model.embed_tokens", "0", "1", "model.norm"]
    assert grid["values"][0][-1] == pytest.approx(float((theirs[:64] - ours).norm() / ours.norm()))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.12.mlp.experts.7.gate_proj.weight", ("12", "mlp.experts.gate_proj")),
        ("model.layers.3.self_attn.q_proj.bias", ("3", "self_attn.q_proj")),
        ("lm_head.weight", ("lm_head", "whole")),
        ("transformer.h.2.attn.c_attn.weight", ("2", "attn.c_attn")),
    ],
)
def test_places_of_the_heat_map(name: str, place: tuple[str, str]) -> None:
    assert drift.place_of(name) == place
