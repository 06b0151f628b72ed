# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Fusion and drift in one compiled pass over memory: the bits of `fusion.fuse`, at the speed of reading and writing.

Arrays are flat NumPy views whose dtype says what the bits are: ``uint16`` bfloat16, ``int16`` float16, ``float32``
itself. `kernel_exact` computes in float64, as the contract says; `kernel_quick`, for bfloat16, in float32, of which an
instruction takes twice as many, and asks for float64 only where that could make a difference.

Infinities, NaN and overflow do not take part. They show in the sums, which are then not below `UNUSUAL`: the caller
computes those elements with `fusion.fuse` instead.
"""

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np

from . import kernel_exact, kernel_quick

UNUSUAL = 1e70
"""Larger than any sum over finite weights whose fusion is finite, squares of float32's largest number aside."""

Sums = tuple[float, float, float]

_Sums = ctypes.c_double * 3

_FORMATS = {
    np.dtype(np.uint16): kernel_exact.BFLOAT16,
    np.dtype(np.int16): kernel_exact.FLOAT16,
    np.dtype(np.float32): kernel_exact.SINGLE,
}


def fuse_into(base: np.ndarray, sft: np.ndarray, out: np.ndarray, alpha: float) -> Sums:
    """``out = alpha * sft + (1 - alpha) * base``, and the sums of squares that `drift.Drift` is made of.

    Args:
        base: ``[n]``, a view as above, contiguous; n is not 0.
        sft: ``[n]``.
        out: ``[n]``, overwritten; its dtype is that of ``sft``. It overlaps with neither.
        alpha: in (0, 1); 0 and 1 are copies, which this is not for.

    Returns:
        ``sum((sft - base) ** 2)``, ``sum((out - base) ** 2)``, ``sum(base ** 2)``: float64, and within a millionth if
        base and SFT are bfloat16. Their last bits depend on the processor, not on threads. If one is not below
        `UNUSUAL`, as with bfloat16 from 1e19 on, ``out`` is not valid.
    """
    if base.dtype == sft.dtype == np.uint16 and alpha >= kernel_quick.SMALLEST_ALPHA:
        sums = _call(_quick(kernel_quick.has_exact_products(alpha)), base, sft, out, alpha)
        small = kernel_quick.SMALLEST_SQUARE * len(out)
        if min(sums) >= small or (sums[2] >= small and np.array_equal(base, sft)):
            return sums
    return _exactly("all", base, sft, out, 0, len(out), np.array([alpha]))


def fuse_parts_into(
    base: np.ndarray, sft: np.ndarray, out: np.ndarray, first: int, row: int, alphas: np.ndarray, by_row: bool
) -> Sums:
    """`fuse_into` with an alpha for each row, or for each column, of the matrix that the elements are a part of.

    Args:
        base: ``[n]``.
        sft: ``[n]``.
        out: ``[n]``, overwritten.
        first: flat index, in the matrix, of the first element.
        row: elements in a row of the matrix.
        alphas: float64, one for each row of the matrix if ``by_row``, else for each column. 0 and 1 give the bits of
            base and SFT.
        by_row: which of the two.
    """
    return _exactly("rows" if by_row else "columns", base, sft, out, first, row, alphas)


def _exactly(
    of: str, base: np.ndarray, sft: np.ndarray, out: np.ndarray, first: int, row: int, alphas: np.ndarray
) -> Sums:
    return _call(_exact(base.dtype, sft.dtype, of), base, sft, out, first, row, alphas.ctypes.data)


def _call(compiled: Callable[..., None], base: np.ndarray, sft: np.ndarray, out: np.ndarray, *others: float) -> Sums:
    sums = _Sums()
    # ctypes lets other threads run meanwhile.
    compiled(base.ctypes.data, sft.ctypes.data, out.ctypes.data, len(out), *others, ctypes.addressof(sums))
    return sums[0], sums[1], sums[2]


@cache
def _quick(exact_products: bool) -> Callable[..., None]:
    return kernel_quick.fuse("fuse", exact_products).compile()


@cache
def _exact(base: np.dtype, sft: np.dtype, alphas: str) -> Callable[..., None]:
    return kernel_exact.fuse("fuse", _FORMATS[base], _FORMATS[sft], alphas).compile()
