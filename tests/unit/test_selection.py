# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""From scores to sets: the paper's rule, ties, rounding, and controls of equal size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rejuv_plugin.ops.selection import Tally, highest, quota, select

RATIOS = st.floats(0, 1)


def tally(scores: list[list[float]] | torch.Tensor, ratio: float, signed: bool = False) -> Tally:
    scores = torch.as_tensor(scores, dtype=torch.float32)
    found = Tally(scores.shape[1], ratio, signed)
    found.add(scores)
    return found


def chosen(scores: list[list[float]], ratio: float, *, rule: str = "union", which: str = "top", **more) -> tuple:
    return select(tally(scores, ratio, **more), rule, which, 0, "m")


@pytest.mark.parametrize(
    ("ratio", "neurons", "expected"),
    [(0, 9, 0), (1, 9, 9), (0.01, 9, 1), (0.01, 100, 1), (0.07, 100, 7), (0.011, 100, 2)],
)
def test_shares_are_rounded_up_to_whole_neurons(ratio: float, neurons: int, expected: int) -> None:
    assert quota(ratio, neurons) == expected


def test_the_union_over_positions() -> None:
    scores = [[1, 9, 2, 0], [1, 0, 2, -9]]
    assert chosen(scores, 0.25) == (1, 3)
    assert chosen(scores, 0.25, signed=True) == (1, 2)
    assert chosen(scores, 0.5) == (1, 2, 3)


def test_the_aggregate_is_of_the_mean() -> None:
    scores = [[6, 9, 0, 0], [6, 0, 0, -9.5]]
    assert chosen(scores, 0.25) == (1, 3)
    assert chosen(scores, 0.25, rule="aggregate") == (0,)
    assert chosen(scores, 0.5, rule="aggregate") == (0, 3)
    assert select(Tally(4, 0.5), "aggregate", "top", 0, "m") == ()


def test_cuts_that_another_machine_may_draw_elsewhere_are_counted() -> None:
    rows = [
        [4, 2.00001, 2.0, 1],  # a relative difference of 5e-6
        [4, 2.0001, 2.0, 1],
        [4, -2, 2, 1],
        [4, 0, 0, 0],  # nothing to tell apart, here or elsewhere
    ]
    assert tally(rows, 0.5).close == 2
    assert tally(rows, 0.5, signed=True).close == 1
    assert tally(rows, 1).close == tally(rows, 0).close == 0
    assert (tally(rows, 0.5) | tally(rows[:1], 0.5)).close == 3


def test_of_equals_the_lower_index() -> None:
    assert chosen([[5.0] * 1000], 0.003) == (0, 1, 2)
    assert chosen([[5.0] * 1000], 0.003, rule="aggregate") == (0, 1, 2)
    assert highest(torch.tensor([0.0, -0.0, 1.0, 1.0]), 4).tolist() == [2, 3, 0, 1]


def test_bottom_is_the_lowest_by_mean() -> None:
    assert chosen([[3, 1, 2, 9], [3, 1, 2, 9]], 0.5, which="bottom") == (1, 2)


def test_a_cap_keeps_what_most_positions_voted_for_then_the_higher_mean() -> None:
    # Votes at one of four: neuron 3 twice, 1 and 2 once each; 2 has the higher mean.
    scores = [[0, 0, 0, 5], [0, 0, 0, 5], [0, 6, 1, 0], [0, 1, 9, 0]]
    found = tally(scores, 0.25)
    assert [select(found, "union", "top", 0, "m", cap) for cap in (1.0, 0.75, 0.5, 0.25, 0.2, 0.0)] == [
        (1, 2, 3),
        (1, 2, 3),
        (2, 3),
        (3,),
        (),
        (),
    ]
    assert select(found, "union", "bottom", 0, "m", 0.5) == (0, 1)
    # Three tenths of ten are three, although 0.3 * 10 is a little less in binary.
    assert len(select(tally(torch.eye(10), 0.1), "union", "top", 0, "m", 0.3)) == 3


# A busy machine is not a slow function.
@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), RATIOS, st.integers(0, 2**32), st.sampled_from(["union", "aggregate"]))
def test_sizes(neurons: int, positions: int, ratio: float, seed: int, rule: str) -> None:
    scores = torch.randn(positions, neurons, generator=torch.Generator().manual_seed(seed))
    found = tally(scores, ratio)
    top = select(found, rule, "top", seed, "m")
    share = quota(ratio, neurons)
    assert share <= len(top) <= (min(neurons, positions * share) if rule == "union" else share)
    assert list(top) == sorted(set(top))
    for control in ("bottom", "random"):
        other = select(found, rule, control, seed, "m")
        assert len(other) == len(top)
        assert list(other) == sorted(set(other))
        assert all(0 <= i < neurons for i in other)


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(2, 6), RATIOS, st.integers(0, 2**32))
def test_the_set_does_not_depend_on_how_positions_come(neurons: int, positions: int, ratio: float, seed: int) -> None:
    scores = torch.randn(positions, neurons, generator=torch.Generator().manual_seed(seed))
    whole, first, rest = tally(scores, ratio), tally(scores[:1], ratio), tally(scores[1:], ratio)
    assert select(whole, "union", "top", 0, "m") == select(first | rest, "union", "top", 0, "m")
    assert (first | rest).positions == positions
    ranked = [sorted(range(neurons), key=lambda i, row=row: (-abs(row[i]), i)) for row in scores]
    by_hand = {i for order in ranked for i in order[: quota(ratio, neurons)]}
    assert set(select(whole, "union", "top", 0, "m")) == by_hand


@settings(deadline=None)
@given(st.integers(1, 30), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_ratio_only_adds(neurons: int, one: float, other: float) -> None:
    scores = torch.randn(3, neurons, generator=torch.Generator().manual_seed(neurons))
    less, more = (set(select(tally(scores, r), "union", "top", 0, "m")) for r in sorted((one, other)))
    assert less <= more


def test_random_depends_on_seed_and_module_alone() -> None:
    found = tally(torch.randn(1, 1000), 0.1)
    draw = {(seed, name): select(found, "union", "random", seed, name) for seed in (0, 1) for name in ("a", "b")}
    assert len(set(draw.values())) == 4
    assert draw[0, "a"] == select(tally(torch.randn(1, 1000), 0.1), "union", "random", 0, "a")
