# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The arithmetic on one piece of a tensor, in buffers: compiled, or in torch where that cannot be, the same bits."""

import logging
import math
from array import array
from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING

from ..ops.drift import Drift
from .adapter_values import sft_values
from .headers import BITS, TORCH_DTYPES
from .plan import Fuse, Plan
from .whole import Whole

# torch and numpy are imported where they are used: most models need them for odd elements at most. torch's import takes
# longer than the fusion of a gigabyte, numpy's 0.1 s.
if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

_log = logging.getLogger(__name__)
# 192 KiB in float64, so that the temporaries of torch's arithmetic stay in the processor's cache: four times as fast as
# 32 MiB, on one core. Below 32768, torch's grain, it sums on one thread, so the drift has the same bits anywhere.
_CHUNK_ELEMENTS = 24 << 10


@cache
def kernel() -> ModuleType | None:
    """The compiled kernel, or None if LLVM does not work here."""
    try:
        from ..ops import kernel as found
    except ImportError as error:
        _log.warning("fusion without llvmlite, several times slower: %s", error)
        return None
    return found


class Combine:
    """One tensor of a plan, to be fused piece by piece, by any number of threads."""

    def __init__(self, plan: Plan, operation: Fuse) -> None:
        self._operation = operation
        self._alpha = operation.alpha
        self._omega = plan.reset.omega if plan.reset and operation.reset else None
        self._member = _member(operation) if self._omega is not None else None
        self._kernel = None
        self._dtypes = operation.base.dtype, operation.sft.dtype
        self._sft_values = sft_values(plan.adapter, operation) if plan.adapter else None
        self._altered = _altered(plan, operation)
        if (
            plan.adapter is None
            and self._altered is None
            and (found := kernel())
            and found.DTYPES.issuperset(self._dtypes)
        ):
            self._kernel = found
        shape = operation.sft.shape
        self._row = max(1, math.prod(shape[1:]))
        self._by_row = operation.reset is None or operation.reset.dim == 0
        self._alphas: array[float] | np.ndarray | None = None
        if self._kernel and (self._member is not None or self._alpha in (0.0, 1.0)):
            self._alphas = self._each_alpha()

    def __call__(
        self, first: int, count: int, base: memoryview, sft: memoryview, output: memoryview
    ) -> tuple[Drift, Drift]:
        """Fuse the flat elements ``[first, first + count)`` of the tensor.

        Args:
            first: of the piece in the tensor.
            count: elements.
            base: the bytes of the first `common` of them, in the base's dtype.
            sft: the bytes of all, in the SFT checkpoint's dtype.
            output: overwritten with the result, in the SFT checkpoint's dtype.

        Returns:
            Drift from the base, of SFT and of the output.
        """
        common, width = self.common(first, count), BITS[self._operation.sft.dtype] // 8
        if common < count:
            # Of a grown vocabulary, the last rows have no base: they stay as they are.
            kept = common * width
            output[kept:] = sft[kept:]
            sft, output = sft[:kept], output[:kept]
        return self._fuse(first, common, base, sft, output) if common else (Drift(), Drift())

    def common(self, first: int, count: int) -> int:
        """How many of the flat elements ``[first, first + count)`` have a base; the first ones."""
        return max(0, min(count, self._operation.common - first))

    def _fuse(
        self, first: int, count: int, base: memoryview, sft: memoryview, output: memoryview
    ) -> tuple[Drift, Drift]:
        if self._kernel:
            buffers = base, sft, output, self._dtypes
            if self._alphas is None:
                sums = self._kernel.fuse_into(*buffers, self._alpha)
            else:
                sums = self._kernel.fuse_parts_into(*buffers, first, self._row, self._alphas, self._by_row)
            moved, fused, norm = sums
            # Written so that NaN is unusual, too.
            if moved < self._kernel.UNUSUAL and fused < self._kernel.UNUSUAL and norm < self._kernel.UNUSUAL:
                return Drift(moved, norm), Drift(fused, norm)
        return self._in_torch(first, count, base, sft, output)

    def _in_torch(
        self, first: int, count: int, base: memoryview, sft: memoryview, output: memoryview
    ) -> tuple[Drift, Drift]:
        import torch

        from ..ops.drift import drift
        from ..ops.fusion import fuse
        from ..ops.reset import fuse_and_reset

        moved, fused = Drift(), Drift()
        for start in range(0, count, _CHUNK_ELEMENTS):
            end = min(start + _CHUNK_ELEMENTS, count)
            ours = _tensor(base, self._operation.base.dtype, start, end)
            theirs = _tensor(sft, self._operation.sft.dtype, start, end)
            dtype = theirs.dtype
            if self._sft_values:
                theirs = self._sft_values(first + start, first + end, ours)
            moved += drift(theirs, ours)
            alpha = self._alpha
            if self._altered:
                # With alpha applied, and not rounded: to what follows it is an SFT checkpoint in float64.
                theirs, alpha = self._altered(first + start, ours, theirs, alpha), 1.0
            if self._member is None or self._omega is None:
                mixed = fuse(ours, theirs, alpha, dtype)
            else:
                chosen = torch.from_numpy(self._member[self._index(first + start, first + end)])
                mixed = fuse_and_reset(ours, theirs, alpha, self._omega, chosen, dtype)
            _tensor(output, self._operation.sft.dtype, start, end).copy_(mixed)
            fused += drift(mixed, ours)
        return moved, fused

    def _index(self, first: int, last: int) -> "np.ndarray":
        """``[last - first]``: the row or column of each element."""
        import numpy as np

        flat = np.arange(first, last)
        return flat // self._row if self._by_row else flat % self._row

    def _each_alpha(self) -> "array[float] | np.ndarray":
        """The alpha of each row, or of each column; all rows', if the tensor is not reset."""
        shape = self._operation.sft.shape
        if self._member is None or self._omega is None:
            self._row = max(1, math.prod(shape))
            return array("d", [self._alpha])
        import numpy as np

        from ..ops.reset import reset_alpha

        return np.where(self._member, reset_alpha(self._alpha, self._omega), self._alpha)


def _altered(plan: Plan, operation: Fuse) -> "Callable[[int, Tensor, Tensor, float], Tensor] | None":
    """A function of first flat element, base, SFT and alpha, to what is written where that is not their fusion."""
    # Tensors that are one in the model have the same random numbers.
    name = plan.twins.get(operation.name, operation.name)
    if plan.fusion.method != "linear":
        return Whole(plan, operation, name)
    return partial(operation.perturbed, name) if operation.perturbed else None


def _member(operation: Fuse) -> "np.ndarray":
    """Which rows or columns are reset: ``[rows or columns]`` bool."""
    import numpy as np

    part = operation.reset
    assert part is not None
    member = np.zeros(operation.sft.shape[part.dim], dtype=bool)
    member[list(part.indices)] = True
    return member


def _tensor(data: memoryview, dtype: str, start: int, end: int) -> "torch.Tensor":
    import torch

    width = BITS[dtype] // 8
    return torch.frombuffer(data[start * width : end * width], dtype=getattr(torch, TORCH_DTYPES[dtype]))
