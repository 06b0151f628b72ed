# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How far weights moved from the base, as sums that add up over chunks, tensors and ranks."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Drift:
    """Two float64 sums of squares. Add them over the parts of a model, then read `relative`; never average ratios."""

    moved: float = 0.0
    """Sum of ``(x - base) ** 2``."""

    base: float = 0.0
    """Sum of ``base ** 2``."""

    def __add__(self, other: "Drift") -> "Drift":
        return Drift(self.moved + other.moved, self.base + other.base)

    @property
    def relative(self) -> float:
        """``||x - base|| / ||base||`` (L2, no unit): 0 if nothing moved, infinite if only the base is all zero;
        infinite or NaN where a sum is not finite."""
        if self.base == 0.0:
            return 0.0 if self.moved == 0.0 else math.inf
        return math.sqrt(self.moved / self.base)


def drift(x: "Tensor", base: "Tensor") -> Drift:
    """Measure how far ``x`` is from ``base``.

    Args:
        x: any shape, any floating dtype.
        base: same shape, any floating dtype.

    Returns:
        The sums over all elements, accumulated in float64; the inputs are not changed. The last bits depend on the
        number of threads that torch sums with.
    """
    # Imported late: `Drift` is also used where torch, which takes seconds to import, has nothing to do.
    import torch

    wide = base.to(torch.float64)
    moved = x.to(torch.float64, copy=True).sub_(wide)
    return Drift(moved.square_().sum().item(), wide.square().sum().item())
