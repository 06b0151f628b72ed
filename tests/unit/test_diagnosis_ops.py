# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of a diagnosis, against the libraries that define it and against hand-made cases."""

from itertools import combinations
from math import comb, log

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from rejuv_plugin.ops.bootstrap import bootstrap, ratio
from rejuv_plugin.ops.calibration_error import expected_calibration_error, reliability
from rejuv_plugin.ops.passes import pass_at, pass_floor
from rejuv_plugin.ops.spikes import Magnitudes


@pytest.mark.parametrize("scale", [0.5, 3.0, 80.0])
@pytest.mark.parametrize("bins", [15, 7])
def test_calibration_error_is_that_of_torchmetrics(scale: float, bins: int) -> None:
    generator = torch.Generator().manual_seed(bins)
    p = (scale * torch.randn(400, 6, generator=generator)).softmax(-1)
    target = torch.randint(6, (400,), generator=generator)
    theirs = MulticlassCalibrationError(6, n_bins=bins, norm="l1")(p, target)
    confidence, guess = p.max(-1)
    whole = reliability(confidence, guess == target, bins)
    assert float(expected_calibration_error(whole)) == pytest.approx(float(theirs), abs=1e-6)
    parts = [reliability(confidence[half], (guess == target)[half], bins) for half in (slice(150), slice(150, 400))]
    assert torch.allclose(sum(parts), whole)
    # The sharpest case is about the edge: a confidence of exactly 1.
    assert (scale < 80) or bool((confidence == 1).any())


def test_calibration_error_by_hand() -> None:
    confidence, correct = torch.tensor([0.95, 0.95, 0.55, 0.5]), torch.tensor([True, False, True, True])
    # One bin over-confident by 0.45 (two answers), one under-confident by 0.475 (two).
    assert float(expected_calibration_error(reliability(confidence, correct, 5))) == pytest.approx(0.4625)


@pytest.mark.parametrize("group", [1, 2, 5, 8])
def test_pass_at_k_counts_subsets(group: int) -> None:
    for passed in range(group + 1):
        results = [1] * passed + [0] * (group - passed)
        for k in range(1, group + 1):
            subsets = [any(subset) for subset in combinations(results, k)]
            found = float(pass_at(torch.tensor(passed), group, k))
            assert found == pytest.approx(np.mean(subsets))
            assert found == pytest.approx(1 - comb(group - passed, k) / comb(group, k))


def test_at_the_floor_half_of_the_groups_have_no_pass() -> None:
    assert pass_floor(8) == pytest.approx(0.083, abs=1e-3)
    for group in (1, 4, 16):
        assert (1 - pass_floor(group)) ** group == pytest.approx(0.5)


def test_bootstrap_of_a_mean_has_the_interval_of_the_t_test() -> None:
    values = torch.randn(400, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 3
    found = bootstrap(torch.stack([values, torch.ones_like(values)], -1), ratio, seed=1, resamples=4000)
    assert found.value == pytest.approx(float(values.mean()))
    half = 1.96 * float(values.std()) / 20
    assert found.interval == (pytest.approx(found.value - half, abs=0.01), pytest.approx(found.value + half, abs=0.01))


def test_bootstrap_resamples_examples_not_tokens() -> None:
    # Two examples: 1 token of 0, 99 tokens of 1. Each is drawn twice in a quarter of the resamples.
    sums = torch.tensor([[0.0, 1.0], [99.0, 99.0]], dtype=torch.float64)
    found = bootstrap(sums, ratio, seed=0)
    assert (found.value, found.interval) == (0.99, (0.0, 1.0))
    assert bootstrap(sums, ratio, seed=0) == found


def test_bootstrap_of_what_is_not_known() -> None:
    assert bootstrap(torch.tensor([[3.0, 2.0]]), ratio, seed=0).interval is None
    assert bootstrap(torch.zeros(4, 2), ratio, seed=0) is None
    # A resample of the empty examples alone has no mean.
    assert bootstrap(torch.tensor([[1.0, 1.0], [0.0, 0.0]]), ratio, seed=0).interval is None


def test_bootstrap_of_a_few_is_too_sure_to_be_believed() -> None:
    alike = torch.ones(16, 2, dtype=torch.float64)
    few, enough = bootstrap(alike[:15], ratio, seed=0), bootstrap(alike, ratio, seed=0)
    assert few.interval == enough.interval == (1.0, 1.0)
    assert (few.known, enough.known) == (False, True)


def test_bootstrap_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    bootstrap(torch.rand(5, 2, generator=torch.Generator().manual_seed(0)) + 1, ratio, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["normal", "heavy", "few", "equal"])
def test_spikes_are_those_of_a_sort(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    change = torch.randn(50_000, generator=generator, dtype=torch.float64) * 1e-3
    if kind == "heavy":
        change = change**5
    elif kind == "few":
        change[200:] = 0
    elif kind == "equal":
        change = torch.full_like(change, -0.3)
    sizes = change.square().sort(descending=True).values
    exact = float(sizes[:500].sum() / sizes.sum())
    whole = Magnitudes.of(change.reshape(5, -1))
    assert whole.top_share() == pytest.approx(exact, rel=2e-3)
    assert (Magnitudes.of(change[:999]) + Magnitudes.of(change[999:])).top_share() == pytest.approx(exact, rel=2e-3)


def test_spikes_of_known_distributions() -> None:
    normal = torch.randn(2_000_000, generator=torch.Generator().manual_seed(0))
    # 2 (z phi(z) + Q(z)) at the 0.5 % quantile z = 2.576.
    assert Magnitudes.of(normal).top_share() == pytest.approx(0.0845, abs=1e-3)
    exponential = torch.empty(2_000_000).exponential_(generator=torch.Generator().manual_seed(0))
    # The integral of x^2 e^-x from log 100 on, over 2.
    z = log(100)
    assert Magnitudes.of(exponential).top_share() == pytest.approx((z * z + 2 * z + 2) / 200, abs=2e-3)
    assert Magnitudes.of(torch.zeros(5)).top_share() is None
    assert Magnitudes.of(normal).changed == 1
    assert (Magnitudes.of(torch.zeros(5)) + Magnitudes.of(torch.tensor([1e-30, -2.0, 0.0]))).changed == 0.25
    assert Magnitudes.none().changed == 0
    assert Magnitudes.of(torch.tensor([1.0, float("nan")])).top_share() is None
