# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The SFT weights that a LoRA adapter stands for, a few elements at a time, in float64.

``base + scale * (left @ right)``: products and sums in float64, the sum over the rank in ascending order, so that the
bits depend neither on a library nor on how a tensor is cut. PEFT's own merge rounds to the base's dtype in between.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .adapter import Adapter, LowRank
from .digest import identity
from .elements import read_elements
from .plan import Fuse

if TYPE_CHECKING:
    import torch


def sft_values(adapter: Adapter, operation: Fuse) -> Callable[[int, int, "torch.Tensor"], "torch.Tensor"]:
    """A function of first and last flat element, and the base's values of them, to the SFT checkpoint's."""
    replaced, added, columns = (
        operation.replaced,
        operation.added,
        operation.sft.shape[-1] if operation.sft.shape else 1,
    )
    if replaced is not None:
        return lambda first, last, base: read_elements(adapter.path, replaced, first, last)
    assert added is not None
    # A file that was replaced, at the same path, has other factors.
    file = identity(adapter.path)

    def values(first: int, last: int, base: "torch.Tensor") -> "torch.Tensor":
        import torch

        left, right = _factors(adapter.path, file, added)
        row = first // columns
        rows = left[row : -(-last // columns)]
        delta = torch.zeros(len(rows), columns, dtype=torch.float64)
        for k in range(right.shape[0]):
            # Not addcmul or a matrix product: those may contract, or sum in another order.
            delta += rows[:, k, None] * right[k]
        part = delta.flatten()[first - row * columns : last - row * columns]
        return base.to(torch.float64) + added.scale * part

    return values


@lru_cache(maxsize=4)
def _factors(path: Path, file: str, added: LowRank) -> "tuple[torch.Tensor, torch.Tensor]":
    """``[rows, r]`` and ``[r, columns]``, float64; ``file`` is the identity of ``path``."""
    import torch

    sides = (added.left, added.right)
    left, right = (read_elements(path, i, 0, i.elements).to(torch.float64).reshape(i.shape) for i in sides)
    return (left.T.contiguous(), right.T.contiguous()) if added.transposed else (left, right)
