# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Candidates compared on the same prompts with common random numbers, with intervals by a bootstrap over prompts.
Over less than `bootstrap.FEWEST` of them it is far too sure, and nothing is told from anything."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..ops.bootstrap import LEVEL, Estimate, bootstrap, ratio, resampled


def mean(values: Tensor, seed: int, level: float = LEVEL) -> Estimate:
    """Mean of ``[n]`` float64 over prompts, with its interval, of 95 % unless told."""
    found = bootstrap(torch.stack([values, torch.ones_like(values)], -1), ratio, seed, level=level)
    assert found is not None, "scores are finite"
    return found


def difference(ours: Tensor, theirs: Tensor, seed: int, level: float = LEVEL) -> Estimate:
    """Mean of ``ours - theirs`` over the prompts that both have, the first ones; ``[n]`` and ``[m]`` float64."""
    both = min(len(ours), len(theirs))
    return mean(ours[:both] - theirs[:both], seed, level)


def clearly_below(found: Estimate) -> bool:
    """Whether a difference's whole interval is below 0."""
    return found.known and found.interval is not None and found.interval[1] < 0


def told_apart(found: Estimate) -> bool:
    """Whether a difference's interval leaves 0 out."""
    return found.known and found.interval is not None and not found.interval[0] <= 0 <= found.interval[1]


def probability_best(values: Sequence[Tensor], seed: int) -> list[float]:
    """For each of C candidates, the share of resamples of the prompts in which its mean is the highest.

    Args:
        values: of each candidate ``[n]`` float64, of the same prompts.
        seed: of the bootstrap.

    Returns:
        C shares; those of equal candidates are equal, and all add up to 1.
    """
    sums = resampled(torch.stack(list(values), -1), seed)
    highest = sums.amax(-1, keepdim=True)
    # Equal candidates' sums differ in their last bits: a matrix product adds up each column in an order of its own.
    best = (sums >= highest - 1e-9 * highest.abs().clamp(min=1)).double()
    return (best / best.sum(-1, keepdim=True)).mean(0).tolist()
