# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""From scores per position to a set of neurons per module (arXiv 2606.09932 v1, Eq. 4), and controls of equal size.

The paper does not say how a share is rounded or whether scores are ranked by value or by magnitude. Ours: rounded up
to whole neurons, so that a ratio above 0 always selects; by magnitude, since a neuron that suppresses the target
took part in it as much as one that supports it. Ties go to the lower index.
"""

import hashlib
import math
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor

CLOSE = 1e-5
"""Scores on the two sides of a cut whose relative difference is not above this may change sides on another machine,
which adds float32 numbers in another order."""


def quota(ratio: float, neurons: int) -> int:
    """``ceil(ratio * neurons)``, with the ratio taken as the decimal it is written as: 0.07 of 100 are 7, not 8."""
    return math.ceil(_exact(ratio) * neurons)


def _exact(ratio: float) -> Fraction:
    return Fraction(repr(float(ratio)))


@dataclass
class Tally:
    """What the selection needs to know of one module's scores; grows with the module, not with the calibration set."""

    neurons: int
    ratio: float
    signed: bool = False
    """Rank by value (large positive first) instead of by magnitude."""
    votes: Tensor = field(init=False)
    """``[neurons]`` int64: at how many positions it is in the top ``ratio``."""
    total: Tensor = field(init=False)
    """``[neurons]`` float64: sum of the ranked scores over all positions."""
    positions: int = field(init=False, default=0)
    close: int = field(init=False, default=0)
    """At how many positions the cut between the top ``ratio`` and the rest is a close one, see `CLOSE`. Not so where
    both are 0, which is 0 on any machine."""

    def __post_init__(self) -> None:
        self.votes = torch.zeros(self.neurons, dtype=torch.int64)
        self.total = torch.zeros(self.neurons, dtype=torch.float64)

    def add(self, scores: Tensor) -> None:
        """Count scores ``[P, neurons]``, any floating dtype, finite, on any device."""
        ranked, count = scores if self.signed else scores.abs(), quota(self.ratio, self.neurons)
        top = highest(ranked, min(count + 1, self.neurons))
        self.votes += torch.bincount(top[:, :count].flatten().cpu(), minlength=self.neurons)
        if 0 < count < self.neurons:
            last, first_out = ranked.gather(1, top[:, count - 1 :]).unbind(1)
            self.close += int(((last - first_out <= CLOSE * last.abs()) & (last != 0)).sum())
        self.total += ranked.to(torch.float64).sum(0).cpu()
        self.positions += len(scores)

    def __or__(self, other: "Tally") -> "Tally":
        both = Tally(self.neurons, self.ratio, self.signed)
        both.votes, both.total = self.votes + other.votes, self.total + other.total
        both.positions, both.close = self.positions + other.positions, self.close + other.close
        return both


def highest(scores: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` highest scores along the last dimension, best first; of equals the lower index."""
    return torch.sort(scores, dim=-1, descending=True, stable=True).indices[..., :count]


def select(tally: Tally, rule: str, which: str, seed: int, name: str, cap: float = 1.0) -> tuple[int, ...]:
    """The neurons of one module.

    Args:
        tally: the module's scores.
        rule: ``union`` of the top ratio at each position (Eq. 4), or ``aggregate``: the top ratio by the scores' mean
            over all positions. The union is larger than the ratio; the aggregate is not.
        which: ``top``, as above; or a control with as many neurons in each module: ``bottom`` (lowest mean score) or
            ``random``.
        seed: of ``random``.
        name: of the module: each draws on its own, whichever others there are.
        cap: the largest share of the module that may be selected, rounded down to whole neurons. A union above it keeps
            the neurons that are in the top at most positions, of equals those of the higher mean score.

    Returns:
        Ascending indices.
    """
    if rule == "union":
        # Two stable sorts: by votes, of equals by mean score, of equals by index.
        by_score = highest(tally.total, tally.neurons)
        by_votes = by_score[highest(tally.votes[by_score], tally.neurons)]
        top = by_votes[: int((tally.votes > 0).sum())]
    else:
        top = highest(tally.total, quota(tally.ratio, tally.neurons) if tally.positions else 0)
    top = top[: math.floor(_exact(cap) * tally.neurons)]
    if which == "bottom":
        top = highest(-tally.total, len(top))
    elif which == "random":
        drawn = hashlib.sha256(f"{seed}|{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(drawn[:8], "little", signed=True))
        top = torch.randperm(tally.neurons, generator=generator)[: len(top)]
    return tuple(sorted(top.tolist()))
