# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How curved a loss is along an update, from a few values of it alone (Kalra et al., arXiv 2601.16979)."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite


@dataclass(frozen=True)
class CriticalStep:
    """Where, along an update, the loss gets higher than it was before the update. Steps are in units of the update: 1
    is the update itself."""

    low: float
    """The loss is not higher at this step; 0 where it was higher at each step that was tried."""
    high: float
    """The loss is higher at this step, or not finite; infinite where it was not at any step that was tried."""
    evaluations: int
    """Of the loss, that at step 0 included."""

    @property
    def found(self) -> bool:
        """Whether both ends of the bracket were."""
        return self.low > 0 and self.high < inf

    @property
    def step(self) -> float:
        """The critical step, at most half of ``high - low`` off. Where the bracket is open, its known end as a bound: 0
        where the loss rises from the start on (the update leads uphill), else the largest step tried, above which the
        critical one lies."""
        return (self.low + self.high) / 2 if self.found else self.low

    def sharpness(self, unit: float = 1.0) -> float:
        """``lambda_c = 2 / eta_c`` with ``eta_c = unit * step``. Infinite where the loss rises from the start
        on; an upper bound where it never rose.

        Args:
            unit: what a step of 1 is: the learning rate, for the sharpness of the paper; 1, in units of the update.
        """
        return 2 / (unit * self.step) if unit * self.step > 0 else inf


def critical_step(
    loss: Callable[[float], float], start: float = 1.0, doublings: int = 10, bisections: int = 5
) -> CriticalStep:
    """The smallest step along an update at which the loss is higher than at step 0: exponential search from ``start``,
    up while the loss is not higher or down while it is, then bisection. Of a quadratic loss along its negative gradient
    g, 2 over the step is ``g'Hg / g'g``.

    A loss that rises and falls again between two doublings is taken not to rise there. An equal loss is not higher.

    Args:
        loss: of a step along the update, at 0 first. Not finite counts as higher.
        start: the first step that is tried, above 0.
        doublings: of ``start`` at most, and as many halvings.
        bisections: of the bracket, which is then ``2 ** -bisections`` times its lower end wide.

    Returns:
        The bracket, after at most ``2 + doublings + bisections`` evaluations.

    Raises:
        ValueError: the loss at 0 is not finite.
    """
    before, evaluations = loss(0.0), 1
    if not isfinite(before):
        raise ValueError(f"loss before the update: expected a finite number, got {before}")

    def rises(step: float) -> bool:
        nonlocal evaluations
        evaluations += 1
        value = loss(step)
        return not isfinite(value) or value > before

    low, high, step = 0.0, inf, start
    for _ in range(doublings + 1):
        if rises(step):
            high = step
        else:
            low = step
        if low and high < inf:
            break
        step = low * 2 or high / 2
    for _ in range(bisections if low and high < inf else 0):
        middle = (low + high) / 2
        low, high = (low, middle) if rises(middle) else (middle, high)
    return CriticalStep(low, high, evaluations)
