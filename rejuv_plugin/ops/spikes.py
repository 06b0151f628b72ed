# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How much of a change sits in few elements, without keeping the elements."""

from dataclasses import dataclass

import torch
from torch import Tensor

# Of a positive float32 the upper 15 bits after the sign: exponent and 7 bits of the fraction, so that the magnitudes of
# a bin are within 0.8 % of each other.
_BINS = 1 << 15


@dataclass(frozen=True)
class Magnitudes:
    """A histogram of the magnitudes of a change, fine enough to cut at any size. Add them over parts of a model."""

    counts: Tensor
    """``[32768]`` float64, by magnitude."""
    squares: Tensor
    """``[32768]`` float64: sums of squares."""

    @classmethod
    def none(cls) -> "Magnitudes":
        return cls(torch.zeros(_BINS, dtype=torch.float64), torch.zeros(_BINS, dtype=torch.float64))

    @classmethod
    def of(cls, change: Tensor) -> "Magnitudes":
        """Of all elements of ``change``, any shape, floating."""
        flat = change.reshape(-1)
        bins = flat.float().abs().view(torch.int32) >> 16
        squares = torch.bincount(bins, flat.double().square(), _BINS)
        return cls(torch.bincount(bins, minlength=_BINS).double(), squares)

    def __add__(self, other: "Magnitudes") -> "Magnitudes":
        return Magnitudes(self.counts + other.counts, self.squares + other.squares)

    @property
    def changed(self) -> float:
        """The share of all elements whose change is not 0; 0 of none. Below 2^-133 in magnitude is 0 here."""
        total = float(self.counts.sum())
        return 1 - float(self.counts[0]) / total if total else 0.0

    def top_share(self, share: float = 0.01) -> float | None:
        """The share of the sum of squares that the largest ``share`` of all elements has; None if nothing moved.

        0.085 for normally distributed changes at 0.01, 1 if no more than these moved. Of the one bin that the cut goes
        through a part is taken, as if its elements were equal: an error below 2 % of what that bin has.
        """
        total = self.squares.sum()
        if not (total > 0 and total.isfinite()):
            return None
        counts, squares = self.counts.flip(0), self.squares.flip(0)
        wanted = share * counts.sum()
        taken = (wanted - (counts.cumsum(0) - counts)).clamp(min=0)
        part = torch.where(counts > 0, (taken / counts).clamp(max=1), 0)
        return float((part * squares).sum() / total)
