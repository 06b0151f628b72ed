# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Fusion and drift in one compiled pass over memory: the bits of `fusion.fuse`, at the speed of reading and writing.

Arrays are flat NumPy views whose dtype says what the bits are: ``uint16`` bfloat16, ``int16`` float16, ``float32``
itself. The arithmetic is float64 without contraction: two products and one sum, each rounded. Then one rounding to
storage, done by the processor's own nearest-even: adding ``1.5 * 2 ** k`` of the right ``k`` leaves no bits below the
last one that is stored, and subtracting it again is exact.

Infinities, NaN and overflow do not take part. They show in the sums, which are then not below `UNUSUAL`: the caller
computes those elements with `fusion.fuse` instead.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import float32, float64, njit, types, uint32
from numba.extending import intrinsic, overload

UNUSUAL = 1e70
"""Larger than any sum over finite weights whose fusion is finite, squares of float32's largest number aside."""

_I16, _I32, _I64, _F32, _F64 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.DoubleType()


def _compiled(function: Callable) -> Callable:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        # No directory that can be written, neither beside this file nor the user's: compile in each process.
        return njit(**options)(function)


def fuse_into(base: np.ndarray, sft: np.ndarray, out: np.ndarray, alpha: float) -> tuple[float, float, float]:
    """``out = alpha * sft + (1 - alpha) * base``, and the sums of squares that `drift.Drift` is made of.

    Args:
        base: ``[n]``, a view as above.
        sft: ``[n]``.
        out: ``[n]``, overwritten; its dtype is the one that is rounded to.
        alpha: in (0, 1); 0 and 1 are copies, which this is not for.

    Returns:
        ``sum((sft - base) ** 2)``, ``sum((out - base) ** 2)``, ``sum(base ** 2)`` in float64. Their last bits depend on
        the vector width of the processor, not on threads. If one is not below `UNUSUAL`, ``out`` is not valid.
    """
    return _fuse(base, sft, out, alpha)


def fuse_parts_into(
    base: np.ndarray, sft: np.ndarray, out: np.ndarray, first: int, row: int, alphas: np.ndarray, by_row: bool
) -> tuple[float, float, float]:
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
    if by_row:
        return _fuse_rows(base, sft, out, first, row, alphas)
    return _fuse_columns(base, sft, out, first, row, alphas)


@intrinsic
def _float(context, bits):  # type: ignore[no-untyped-def]
    return float32(uint32), lambda c, b, sig, args: b.bitcast(args[0], _F32)


@intrinsic
def _bits(context, x):  # type: ignore[no-untyped-def]
    return uint32(float32), lambda c, b, sig, args: b.bitcast(args[0], _I32)


@intrinsic
def _power_of_two(context, x):  # type: ignore[no-untyped-def]
    """The largest power of two not above ``abs(x)``: its exponent, all else cut off. 0 for 0."""

    def generate(c, b, sig, args):  # type: ignore[no-untyped-def]
        return b.bitcast(b.and_(b.bitcast(args[0], _I64), _I64(0x7FF0000000000000)), _F64)

    return float64(float64), generate


@intrinsic
def _with_sign(context, magnitude, sign):  # type: ignore[no-untyped-def]
    def generate(c, b, sig, args):  # type: ignore[no-untyped-def]
        function = b.module.declare_intrinsic("llvm.copysign", [_F64], ir.FunctionType(_F64, [_F64, _F64]))
        return b.call(function, args)

    return float64(float64, float64), generate


@intrinsic
def _larger(context, x, y):  # type: ignore[no-untyped-def]
    return float64(float64, float64), lambda c, b, sig, args: b.select(b.fcmp_ordered(">", *args), *args)


@intrinsic
def _add_square(context, total, x):  # type: ignore[no-untyped-def]
    """``total + x * x``, which the compiler may reorder and contract: of the sums alone, never of the weights."""

    def generate(c, b, sig, args):  # type: ignore[no-untyped-def]
        square = b.fmul(args[1], args[1], flags=("contract",))
        return b.fadd(args[0], square, flags=("reassoc", "nsz", "contract"))

    return float64(float64, float64), generate


def _widen(array, i):  # type: ignore[no-untyped-def]
    """Element ``i`` in float64, exactly."""
    raise NotImplementedError


@overload(_widen)
def _widen_overload(array, i):  # type: ignore[no-untyped-def]
    if array.dtype == types.uint16:
        return lambda array, i: float64(_float(uint32(uint32(array[i]) << uint32(16))))
    if array.dtype == types.int16:

        def float16(array, i):  # type: ignore[no-untyped-def]
            bits = uint32(array[i])
            magnitude = (bits & uint32(0x7FFF)) << uint32(13)
            # The exponents of float32 start 112 lower. A product with a power of two also scales subnormals.
            scaled = _bits(_float(magnitude) * float32(2.0**112))
            special = uint32(magnitude >= uint32(0x7C00 << 13)) * uint32(0x7F800000)
            return float64(_float(scaled | special | ((bits & uint32(0x8000)) << uint32(16))))

        return float16
    if array.dtype == types.float32:
        return lambda array, i: float64(array[i])
    return None


def _store(array, i, x):  # type: ignore[no-untyped-def]
    """Round ``x`` to element ``i``; the rounded value in float64."""
    raise NotImplementedError


@overload(_store)
def _store_overload(array, i, x):  # type: ignore[no-untyped-def]
    if array.dtype == types.uint16:

        def bfloat16(array, i, x):  # type: ignore[no-untyped-def]
            # 8 significant bits, subnormals below 2 ** -126.
            magic = _larger(_power_of_two(x), 2.0**-126) * (1.5 * 2.0**45)
            rounded = _with_sign((x + magic) - magic, x)
            array[i] = np.uint16(_bits(float32(rounded)) >> uint32(16))
            return rounded

        return bfloat16
    if array.dtype == types.int16:

        def float16(array, i, x):  # type: ignore[no-untyped-def]
            # 11 significant bits, subnormals below 2 ** -14.
            magic = _larger(_power_of_two(x), 2.0**-14) * (1.5 * 2.0**42)
            rounded = _with_sign((x + magic) - magic, x)
            bits = _bits(float32(rounded) * float32(2.0**-112))
            sign = (bits >> uint32(16)) & uint32(0x8000)
            array[i] = np.int16(np.uint16(sign | ((bits >> uint32(13)) & uint32(0x7FFF))))
            return _with_sign(np.inf, x) if abs(rounded) >= 65536.0 else rounded

        return float16
    if array.dtype == types.float32:

        def single(array, i, x):  # type: ignore[no-untyped-def]
            array[i] = float32(x)
            return float64(array[i])

        return single
    return None


@_compiled
def _fuse(base, sft, out, alpha):  # type: ignore[no-untyped-def]
    beta = 1.0 - alpha
    moved = fused = norm = 0.0
    for i in range(len(out)):
        b = _widen(base, i)
        s = _widen(sft, i)
        r = _store(out, i, alpha * s + beta * b)
        moved = _add_square(moved, s - b)
        fused = _add_square(fused, r - b)
        norm = _add_square(norm, b)
    return moved, fused, norm


@_compiled
def _fuse_rows(base, sft, out, first, row, alphas):  # type: ignore[no-untyped-def]
    moved = fused = norm = 0.0
    start = 0
    while start < len(out):
        number = (first + start) // row
        end = min(len(out), (number + 1) * row - first)
        alpha = alphas[number]
        beta = 1.0 - alpha
        for i in range(start, end):
            b = _widen(base, i)
            s = _widen(sft, i)
            mixed = alpha * s + beta * b
            r = _store(out, i, b if alpha == 0.0 else s if alpha == 1.0 else mixed)
            moved = _add_square(moved, s - b)
            fused = _add_square(fused, r - b)
            norm = _add_square(norm, b)
        start = end
    return moved, fused, norm


@_compiled
def _fuse_columns(base, sft, out, first, row, alphas):  # type: ignore[no-untyped-def]
    moved = fused = norm = 0.0
    start = 0
    while start < len(out):
        column = (first + start) % row
        end = min(len(out), start + row - column)
        for i in range(start, end):
            alpha = alphas[column + i - start]
            b = _widen(base, i)
            s = _widen(sft, i)
            mixed = alpha * s + (1.0 - alpha) * b
            r = _store(out, i, b if alpha == 0.0 else s if alpha == 1.0 else mixed)
            moved = _add_square(moved, s - b)
            fused = _add_square(fused, r - b)
            norm = _add_square(norm, b)
        start = end
    return moved, fused, norm
