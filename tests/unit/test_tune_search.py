# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The search on objectives whose best alpha is known, and what it says of them."""

import json
import math
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from rejuv_plugin.config import TuningConfig
from rejuv_plugin.errors import InputError
from rejuv_plugin.ops.passes import best_of, pass_at
from rejuv_plugin.tune import record
from rejuv_plugin.tune.compare import difference, mean, probability_best
from rejuv_plugin.tune.objective import objective
from rejuv_plugin.tune.scored import Candidate, Scored
from rejuv_plugin.tune.search import Lane, Search, leader, search
from rejuv_plugin.tune.trace import Trace, address

GROUP = 8
GRID = TuningConfig().grid


class Synthetic:
    """Answers that pass with a chance that falls with the distance to the best alpha, on luck that all share."""

    def __init__(self, best: float, slope: float, seed: int = 0, count: int = 512) -> None:
        self._best, self._slope = best, slope
        self.luck = np.random.default_rng(seed).random((count, GROUP))
        self.asked: dict[Candidate, int] = {}

    def __call__(self, candidate: Candidate, count: int) -> Scored:
        self.asked[candidate] = max(count, self.asked.get(candidate, 0))
        chance = 0.5 - self._slope * abs(candidate.alpha - self._best) - 0.3 * candidate.rho
        scores = (self.luck[:count] < chance).astype(float).tolist()
        ones = [[1] * GROUP] * count
        return Scored(scores, ones, [[True] * GROUP] * count, [[0.5] * GROUP] * count, [[0.5] * GROUP] * count, 1.0)


def how(count: int = 512, rhos: tuple[float, ...] = (0.0,), resolution: float | None = 0.025) -> Search:
    return Search(GRID, rhos, resolution, count, seed=0)


def test_the_best_of_k_by_counting() -> None:
    scores = torch.tensor([[0.0, 2.0, -1.0, 0.5, 2.0], [1.0, 1.0, 1.0, 1.0, 1.0]]).double()
    for k in range(1, 6):
        expected = [np.mean([max(some) for some in combinations(row, k)]) for row in scores.tolist()]
        assert best_of(scores, k).tolist() == pytest.approx(expected)
        passed = (torch.rand(50, 5) < 0.3).double()
        assert torch.allclose(best_of(passed, k), pass_at(passed.sum(-1).long(), 5, k))


@pytest.mark.parametrize("best", [0.2, 0.375, 0.5, 0.75])
def test_a_known_optimum_is_found_and_refined(best: float) -> None:
    ask = Synthetic(best, slope=1.0)
    lanes = search(how(), objective(4), ask)
    assert abs(leader(lanes).candidate.alpha - best) <= 0.0126
    assert [lane.candidate for lane in lanes] == sorted(ask.asked)
    said = record.choice(lanes, objective(4), 0)
    assert said["alpha"] == leader(lanes).candidate.alpha
    assert said["interval"][0] < said["value"] < said["interval"][1]
    assert said["probability_best"] > 0.5
    if best != 0.5:
        assert said["against_half"]["interval"][0] > 0
    assert ("lowest alpha that was tried" in said["says"]) == (best == 0.2)


def test_nobody_leaves_on_a_few_prompts() -> None:
    """Two prompts that agree are an interval without 0, and no evidence."""
    assert how(8).rungs == (8,)
    assert how(40).rungs == (20, 40)
    assert how(256).rungs == (64, 128, 256)


def test_half_beside_a_range_does_not_widen_it() -> None:
    ask = Synthetic(0.8, slope=1.0)
    lanes = search(replace(how(), grid=(0.7, 0.8, 0.9), also=(0.5,)), objective(4), ask)
    tried = [lane.candidate.alpha for lane in lanes]
    assert tried[0] == 0.5
    assert all(0.7 <= alpha <= 0.9 for alpha in tried[1:])
    assert {0.75, 0.85} <= set(tried), "half a step of the range, not of the gap to 0.5"


def test_what_is_clearly_worse_leaves_early() -> None:
    ask = Synthetic(0.5, slope=1.0)
    lanes = {lane.candidate.alpha: lane for lane in search(how(resolution=None), objective(4), ask)}
    assert set(lanes) == set(GRID)
    for alpha in (0.2, 0.8):
        assert len(lanes[alpha].values) == ask.asked[Candidate(alpha)] == 128
        assert "clearly worse than alpha 0.5 after 128 prompts: -" in (lanes[alpha].stopped or "")
    assert lanes[0.5].stopped is None
    assert len(lanes[0.5].values) == 512


def test_half_stays_to_compare_with() -> None:
    found = search(how(resolution=None), objective(4), Synthetic(0.2, slope=1.0))
    lanes = {lane.candidate.alpha: lane for lane in found}
    assert lanes[0.8].stopped
    assert lanes[0.5].stopped is None
    assert len(lanes[0.5].values) == len(lanes[0.2].values)


@pytest.mark.parametrize(("count", "sure"), [(8, False), (64, True)])
def test_a_few_prompts_tell_nothing_apart(count: int, sure: bool) -> None:
    said = record.choice(search(how(count), objective(4), Synthetic(0.2, slope=5.0)), objective(4), 0)
    assert ("how sure this is is not known" in said["says"]) != sure
    assert ("cannot be told from" in said["says"]) != sure


def test_a_plateau_is_called_one_and_not_refined() -> None:
    lanes = search(how(), objective(4), Synthetic(0.5, slope=0.0))
    assert {lane.candidate.alpha for lane in lanes} == set(GRID)
    said = record.choice(lanes, objective(4), 0)
    # All are equal, in every resample.
    assert said["probability_best"] == pytest.approx(1 / len(GRID))
    assert "cannot be told from alpha 0.2 or alpha 0.3 or alpha 0.4 or alpha 0.6 or" in said["says"]
    assert said["against_half"] == {"difference": 0.0, "interval": [0.0, 0.0]}


@pytest.mark.parametrize(
    ("luck", "alphas", "says"),
    [
        (-1.0, GRID, "every answer scored 0, so there is nothing to choose by.*(100% ended by themselves)"),
        (0.0, (0.5,), r"alpha 0\.5: best_of_4 [\d.]+ \[[\d., ]+\]; nothing else was tried$"),
    ],
)
def test_where_there_is_nothing_to_choose(luck: float, alphas: tuple[float, ...], says: str) -> None:
    ask = Synthetic(0.5, slope=0.0)
    ask.luck += -luck
    lanes = search(replace(how(64, resolution=None), grid=alphas), objective(4), ask)
    assert re.search(says, record.choice(lanes, objective(4), 0)["says"])


def test_rho_is_searched_beside_alpha() -> None:
    lanes = search(how(rhos=(0.0, 0.01)), objective(4), Synthetic(0.4, slope=1.0))
    assert leader(lanes).candidate == Candidate(0.4)
    assert {lane.candidate.rho for lane in lanes} == {0.0, 0.01}
    # What comes later is tried with the best rho alone.
    assert {lane.candidate.rho for lane in lanes if lane.candidate.alpha not in GRID} <= {0.0}


def test_intervals_cover_the_truth() -> None:
    """Of 200 samples the 95 % interval of the mean misses it in about 10."""
    rng = np.random.default_rng(0)
    missed = 0
    for seed in range(200):
        found = mean(torch.tensor(rng.normal(1.0, 2.0, 60)), seed)
        assert found.interval is not None
        missed += not found.interval[0] <= 1.0 <= found.interval[1]
    assert 3 <= missed <= 22


def test_a_paired_difference_is_surer_than_two_means() -> None:
    rng = np.random.default_rng(0)
    prompts = torch.tensor(rng.normal(0, 1, 200))
    ours, theirs = prompts + 0.1, prompts + torch.tensor(rng.normal(0, 0.05, 200))
    found, alone = difference(ours, theirs, 0), mean(ours, 0)
    assert found.interval is not None
    assert alone.interval is not None
    assert 0.05 < found.interval[0] < 0.1 < found.interval[1] < 0.15
    assert alone.interval[1] - alone.interval[0] > 0.2
    assert difference(ours[:50], theirs, 0).value == pytest.approx((ours[:50] - theirs[:50]).mean().item())
    assert probability_best([ours, theirs], 0) == [1.0, 0.0]


def test_equal_leaders_share_the_probability() -> None:
    lanes = [Lane(Candidate(a), values=torch.tensor([0.0, 1.0]).double()) for a in (0.4, 0.5)]
    assert leader(lanes).candidate.alpha == 0.5
    assert probability_best([lane.values for lane in lanes], 0) == pytest.approx([0.5, 0.5])


def some(count: int, value: float, seconds: float = 1.0) -> Scored:
    rows = [[value, value + 1] for _ in range(count)]
    return Scored(rows, [[3, 4]] * count, [[True, False]] * count, [[math.nan, 0.5]] * count, rows, seconds)


def test_a_trace_goes_on_where_it_was(tmp_path: Path) -> None:
    file, key = tmp_path / "trace.jsonl", address({"a": 1})
    first = Trace(file, key)
    first.add(Candidate(0.4), some(3, 1.0))
    first.add(Candidate(0.4), some(2, 2.0, seconds=2.5))
    first.add(Candidate(0.4, 0.01), some(1, 5.0))
    with file.open("a") as lines:
        lines.write('{"key": "half a li')
    again = Trace(file, key)
    known = again.known(Candidate(0.4))
    assert known.scores == [[1.0, 2.0]] * 3 + [[2.0, 3.0]] * 2
    assert (len(known), known.seconds, known.cached) == (5, 3.5, True)
    assert math.isnan(known.entropy[0][0])
    assert len(known.first(3)) == 3
    assert again.known(Candidate(0.4, 0.01)).scores == [[5.0, 6.0]]
    assert len(again.known(Candidate(0.5))) == 0
    again.add(Candidate(0.4), some(1, 9.0))
    assert Trace(file, key).known(Candidate(0.4)).scores[-1] == [9.0, 10.0]
    assert len(Trace(file, address({"a": 2})).known(Candidate(0.4))) == 0
    # Two processes that asked the same.
    with file.open("a") as lines:
        lines.write(file.read_text().splitlines()[0] + "\n")
    assert len(Trace(file, key).known(Candidate(0.4))) == 6


@pytest.mark.parametrize(
    "content",
    [
        "no json\n",
        "[1]\n",
        '{"key": 1}\n',
        "a line of mine",
        '{"mine": 1}',
        pytest.param("[" * 9999 + "\n", id="nested"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text(content)
    with pytest.raises(InputError, match="expected a trace of rejuv tune"):
        Trace(file, "k")
    assert file.read_text() == content


def test_tuning_json_has_no_nan() -> None:
    lanes = search(how(count=64), objective(4), Synthetic(0.5, slope=1.0))
    rows = record.trace(lanes, 0.5, 0)
    json.dumps(rows, allow_nan=False)
    row = next(row for row in rows if row["alpha"] == 0.5)
    assert row["signals"]["pass_at_1"]["value"] == pytest.approx(0.5, abs=0.1)
    assert row["signals"]["pass_at_k"]["value"] > row["value"] > row["signals"]["pass_at_1"]["value"]
    assert (row["prompts"], row["group"], row["stopped"]) == (64, GROUP, None)


@pytest.mark.parametrize(
    ("settings", "grid"),
    [
        ({}, (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)),
        ({"alphas": "0.45 0.4"}, (0.4, 0.45)),
        ({"alphas": "0.3,0.5"}, (0.3, 0.5)),
        ({"alphas": "0:1", "step": 0.25}, (0.0, 0.25, 0.5, 0.75, 1.0)),
        ({"alphas": "0.1:0.2", "step": 0.1}, (0.1, 0.2)),
    ],
)
def test_grids(settings: dict, grid: tuple[float, ...]) -> None:
    config = TuningConfig(**settings)
    assert config.grid == grid
    assert config.refines == (":" in config.alphas)


@pytest.mark.parametrize(
    "settings",
    [
        *({"alphas": text} for text in ("", "0.8:0.2", "0.2:0.4:0.1", "-0.1", "1.5", "half", "nan", "0.2:")),
        {"step": 0.0},
        {"resolution": 0.2},
        {"count": 0},
        {"group": 0},
        {"group": 2, "best_of": 4},
        {"temperature": 0.0},
        {"sampler": "sglang"},
        {"device": "tpu"},
    ],
)
def test_settings_that_make_no_sense(settings: dict) -> None:
    with pytest.raises(InputError) as told:
        TuningConfig(**settings)
    assert "None" not in told.value.fix
