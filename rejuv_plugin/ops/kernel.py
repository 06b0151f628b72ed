# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Fusion and drift in one compiled pass over memory: the bits of `fusion.fuse`, at the speed of reading and writing.

Buffers are flat, contiguous and writable; their dtype is `BF16`, `F16` or `F32`, as safetensors calls them, and an
element starts at a multiple of its size. `kernel_exact` computes in float64, as the contract says; `kernel_quick`, for
bfloat16, in float32, of which an instruction takes twice as many, and asks for float64 only where that could make a
difference. NumPy is not imported: that takes as long as the fusion of 200 million elements.

Infinities, NaN and overflow do not take part. They show in the sums, which are then not below `UNUSUAL`: the caller
computes those elements with `fusion.fuse` instead.
"""

import ctypes
from array import array
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from . import kernel_exact, kernel_quick

if TYPE_CHECKING:
    import numpy as np

UNUSUAL = 1e70
"""Larger than any sum over finite weights whose fusion is finite, squares of float32's largest number aside."""

Sums = tuple[float, float, float]

_Sums = ctypes.c_double * 3

_FORMATS = {"BF16": kernel_exact.BFLOAT16, "F16": kernel_exact.FLOAT16, "F32": kernel_exact.SINGLE}
DTYPES = frozenset(_FORMATS)

Buffer = bytearray | memoryview
"""Or whatever else has writable memory, such as an array."""


def fuse_into(base: Buffer, sft: Buffer, out: Buffer, dtypes: tuple[str, str], alpha: float) -> Sums:
    """``out = alpha * sft + (1 - alpha) * base``, and the sums of squares that `drift.Drift` is made of.

    Args:
        base: ``[n]``; n is not 0.
        sft: ``[n]``.
        out: ``[n]``, overwritten; its dtype is that of ``sft``. It overlaps with neither.
        dtypes: of base and SFT.
        alpha: in (0, 1); 0 and 1 are copies, which this is not for.

    Returns:
        ``sum((sft - base) ** 2)``, ``sum((out - base) ** 2)``, ``sum(base ** 2)``: float64, and within a millionth if
        base and SFT are bfloat16. Their last bits depend on the processor, not on threads. If one is not below
        `UNUSUAL`, as with bfloat16 from 1e19 on, ``out`` is not valid.
    """
    count = _count(out, dtypes)
    if dtypes == ("BF16", "BF16") and alpha >= kernel_quick.SMALLEST_ALPHA:
        sums = _call(_quick(kernel_quick.way(alpha)), base, sft, out, count, alpha)
        small = kernel_quick.SMALLEST_SQUARE * count
        if min(sums) >= small or (sums[2] >= small and memoryview(base).cast("B") == memoryview(sft).cast("B")):
            return sums
    return _exactly("all", base, sft, out, dtypes, 0, count, array("d", [alpha]))


def fuse_parts_into(
    base: Buffer,
    sft: Buffer,
    out: Buffer,
    dtypes: tuple[str, str],
    first: int,
    row: int,
    alphas: "array[float] | np.ndarray",
    by_row: bool,
) -> Sums:
    """`fuse_into` with an alpha for each row, or for each column, of the matrix that the elements are a part of.

    Args:
        base: ``[n]``.
        sft: ``[n]``.
        out: ``[n]``, overwritten.
        dtypes: of base and SFT.
        first: flat index, in the matrix, of the first element.
        row: elements in a row of the matrix.
        alphas: float64, one for each row of the matrix if ``by_row``, else for each column. 0 and 1 give the bits of
            base and SFT.
        by_row: which of the two.
    """
    return _exactly("rows" if by_row else "columns", base, sft, out, dtypes, first, row, alphas)


def _exactly(
    of: str,
    base: Buffer,
    sft: Buffer,
    out: Buffer,
    dtypes: tuple[str, str],
    first: int,
    row: int,
    alphas: "array[float] | np.ndarray",
) -> Sums:
    return _call(_exact(*dtypes, of), base, sft, out, _count(out, dtypes), first, row, _address(alphas))


def _call(compiled: Callable[..., None], base: Buffer, sft: Buffer, out: Buffer, count: int, *others: float) -> Sums:
    sums = _Sums()
    # ctypes lets other threads run meanwhile.
    compiled(_address(base), _address(sft), _address(out), count, *others, ctypes.addressof(sums))
    return sums[0], sums[1], sums[2]


def _address(buffer: Any) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def _count(out: Buffer, dtypes: tuple[str, str]) -> int:
    return memoryview(out).nbytes // (4 if dtypes[1] == "F32" else 2)


@cache
def _quick(way: str) -> Callable[..., None]:
    return kernel_quick.fuse("fuse", way).compile()


@cache
def _exact(base: str, sft: str, alphas: str) -> Callable[..., None]:
    return kernel_exact.fuse("fuse", _FORMATS[base], _FORMATS[sft], alphas).compile()
