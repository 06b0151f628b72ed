# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How sure a number is that was measured on some examples: the bootstrap."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

RESAMPLES = 1000
LEVEL = 0.95
FEWEST = 16
"""Examples. A percentile bootstrap of fewer is far too sure, and of a few that are alike it is quite sure."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval."""

    value: float
    interval: tuple[float, float] | None
    """None of what is no sample, as a distance between weights; or of a single example, or where some resample has no
    value."""
    known: bool = True
    """Whether how sure it is is known: not by less than `FEWEST` examples, though they may have an interval."""


def bootstrap(
    sums: Tensor,
    statistic: Callable[[Tensor], Tensor],
    seed: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Estimate | None:
    """A statistic of all examples and its percentile interval (Efron, Ann. Statist. 7(1), 1979).

    Examples are resampled whole, since the tokens of one are not independent. Statistics of the same examples under the
    same seed see the same resamples.

    Args:
        sums: ``[n, ...]`` float64, of each example what adds up over examples.
        statistic: from such a sum, ``[..., *]`` with leading dimensions of resamples, to ``[...]``.
        seed: of the resampling; torch's global generator is left alone.
        resamples: how many.
        level: of the interval, below 1.

    Returns:
        None if there is no finite value.
    """
    value = float(statistic(sums.sum(0)))
    if not math.isfinite(value):
        return None
    n = len(sums)
    if n < 2:
        return Estimate(value, None, known=False)
    found = statistic(resampled(sums, seed, resamples))
    if not found.isfinite().all():
        return Estimate(value, None, known=False)
    tail = (1 - level) / 2
    low, high = found.double().quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Estimate(value, (low, high), known=n >= FEWEST)


def resampled(sums: Tensor, seed: int, resamples: int = RESAMPLES) -> Tensor:
    """Sums over resamples of the examples, ``[n, ...]`` to ``[resamples, ...]`` float64, alike for one n and seed."""
    n = len(sums)
    drawn = torch.randint(n, (resamples, n), generator=torch.Generator().manual_seed(seed))
    counts = torch.zeros(resamples, n, dtype=torch.float64)
    counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    return (counts @ sums.double().reshape(n, -1)).reshape(resamples, *sums.shape[1:])


def ratio(sums: Tensor) -> Tensor:
    """The statistic of `bootstrap` for means: ``[..., 2]`` to ``[..., 0] / [..., 1]``."""
    return sums[..., 0] / sums[..., 1]
