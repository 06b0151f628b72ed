# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Critical sharpness, against losses whose curvature is known exactly."""

from math import inf, nan

import pytest
import torch

from rejuv_plugin.ops.sharpness import critical_step

_WIDTH = 2.0**-5  # of the bracket after five bisections, over its lower end


def _quadratic(seed, size=12):
    """A quadratic loss of a step along its negative gradient, and g'Hg / g'g."""
    draw = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=draw, dtype=torch.float64)
    hessian = root @ root.T / size
    w = torch.randn(size, generator=draw, dtype=torch.float64)
    g = hessian @ w

    def loss(step):
        at = w - step * g
        return float(at @ hessian @ at / 2)

    return loss, float(g @ hessian @ g / (g @ g))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("start", [1.0, 1e-2, 40.0])
def test_of_a_quadratic(seed, start):
    loss, curvature = _quadratic(seed)
    found = critical_step(loss, start=start)
    assert found.found
    assert found.low <= 2 / curvature <= found.high <= found.low * (1 + _WIDTH) * (1 + 1e-12)
    assert found.sharpness() == pytest.approx(curvature, rel=_WIDTH)
    assert found.sharpness(unit=1e-3) == pytest.approx(1000 * found.sharpness())


def test_more_bisections_more_digits():
    loss, curvature = _quadratic(0)
    assert critical_step(loss, bisections=40).sharpness() == pytest.approx(curvature, rel=1e-6)


def test_asks_for_zero_first_then_for_what_the_answers_say():
    asked = []

    def loss(step):
        asked.append(step)
        return step * (step - 5.9)

    found = critical_step(loss, bisections=2)
    assert asked == [0, 1, 2, 4, 8, 6, 5]
    assert (found.low, found.high, found.step, found.evaluations) == (5, 6, 5.5, 7)


@pytest.mark.parametrize("beyond", [inf, nan, -inf])
def test_what_diverges_is_higher(beyond):
    found = critical_step(lambda step: -step if step < 3 else beyond)
    assert found.low < 3 <= found.high
    assert found.step == pytest.approx(3, rel=_WIDTH)


@pytest.mark.parametrize("loss", [lambda step: -step, lambda step: 1.5], ids=["falls", "plateau"])
def test_never_higher(loss):
    found = critical_step(loss, start=0.5, doublings=4)
    assert not found.found
    assert (found.low, found.high, found.step, found.evaluations) == (8, inf, 8, 6)
    assert found.sharpness() == 0.25


def test_plateau_then_rise():
    found = critical_step(lambda step: max(0.0, step - 20))
    assert found.found
    assert found.low <= 20 < found.high


def test_uphill_from_the_start():
    found = critical_step(lambda step: step, doublings=4)
    assert not found.found
    assert (found.low, found.high, found.step, found.evaluations) == (0, 1 / 16, 0, 6)
    assert found.sharpness() == inf


def test_of_no_step_at_all():
    assert critical_step(lambda step: -step).sharpness(unit=0) == inf


@pytest.mark.parametrize("before", [inf, nan])
def test_nothing_to_compare_with(before):
    with pytest.raises(ValueError, match="loss before the update: expected a finite number"):
        critical_step(lambda step: before)
