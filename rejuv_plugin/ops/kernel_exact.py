# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The fusion contract in LLVM: float64 without contraction, two products and one sum, each rounded.

Then one rounding to storage, done by the processor's own nearest-even: adding ``1.5 * 2 ** k`` of the right ``k``
leaves no bits below the last one that is stored, and subtracting it again is exact.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .llvm import FLOAT32, FLOAT64, INT16, INT32, INT64, POINTER, Function, Value, about, ir, vector

LANES = 16
"""Elements at a time: several registers for each value, so that one may wait while the others work (measured: best)."""

_SIGN, _EXPONENT = 1 << 63, 0x7FF << 52


@dataclass(frozen=True)
class Format:
    """A storage dtype."""

    element: ir.Type
    widen: Callable[[Value], Value]
    """Stored bits in float64, exactly."""
    store: Callable[[Value], tuple[Value, Value]]
    """Float64 to stored bits, rounded once to nearest even; and the rounded value in float64."""


def _magic_rounding(x: Value, fraction_bits: int, smallest: float) -> Value:
    """Float64 with ``fraction_bits`` bits after the first, fewer below ``smallest``, the least normal number."""
    power = (x.bits(INT64) & _EXPONENT).bits(FLOAT64)
    magic = (power > smallest).choose(power, smallest) * (1.5 * 2.0 ** (52 - fraction_bits))
    return _with_sign((x + magic) - magic, x)


def _with_sign(magnitude: Value, sign: Value) -> Value:
    return ((magnitude.bits(INT64) & (_SIGN - 1)) | (sign.bits(INT64) & _SIGN)).bits(FLOAT64)


def _widen_bfloat16(stored: Value) -> Value:
    return (stored.to(INT32) << 16).bits(FLOAT32).to(FLOAT64)


def _store_bfloat16(x: Value) -> tuple[Value, Value]:
    rounded = _magic_rounding(x, 7, 2.0**-126)
    return (rounded.to(FLOAT32).bits(INT32) >> 16).to(INT16), rounded


def _widen_float16(stored: Value) -> Value:
    bits = stored.to(INT32)
    magnitude = (bits & 0x7FFF) << 13
    # The exponents of float32 start 112 lower. A product with a power of two also scales subnormals.
    scaled = (magnitude.bits(FLOAT32) * 2.0**112).bits(INT32)
    special = (magnitude < (0x7C00 << 13)).choose(scaled, scaled | 0x7F800000)
    return (special | ((bits & 0x8000) << 16)).bits(FLOAT32).to(FLOAT64)


def _store_float16(x: Value) -> tuple[Value, Value]:
    rounded = _magic_rounding(x, 10, 2.0**-14)
    bits = (rounded.to(FLOAT32) * 2.0**-112).bits(INT32)
    stored = ((bits >> 16) & 0x8000) | ((bits >> 13) & 0x7FFF)
    fits = (rounded * rounded) < 65536.0**2
    return stored.to(INT16), fits.choose(rounded, float("inf"))


def _store_float32(x: Value) -> tuple[Value, Value]:
    rounded = x.to(FLOAT32)
    return rounded, rounded.to(FLOAT64)


BFLOAT16 = Format(INT16, _widen_bfloat16, _store_bfloat16)
FLOAT16 = Format(INT16, _widen_float16, _store_float16)
SINGLE = Format(FLOAT32, lambda stored: stored.to(FLOAT64), _store_float32)


def mix(base: Value, sft: Value, alpha: Value) -> Value:
    """The contract, but for the rounding to storage: all in float64."""
    return alpha * sft + (1.0 - alpha) * base


def fuse(name: str, base: Format, sft: Format, alphas: str) -> Function:
    """A function of base, SFT, output, number of elements, flat index of the first in its matrix, elements in a row of
    the matrix, and the addresses of alphas and of three sums, all float64.

    Args:
        name: of the function.
        base: the base's format.
        sft: the format of SFT checkpoint and output.
        alphas: what there is an alpha for: "all" (one, neither 0 nor 1), each of the "rows" or each of the "columns" of
            the matrix; of these, 0 and 1 give the bits of base and SFT.
    """
    f = Function(name, POINTER, POINTER, POINTER, INT64, INT64, INT64, POINTER, POINTER)
    bases, sfts, out, count, first, row, factors, sums = f.arguments

    def some(width: int, alpha_of: Callable[[Value, int], Value]) -> Callable[[Value, list[Value]], list[Value]]:
        def fused(i: Value, totals: list[Value]) -> list[Value]:
            b = base.widen(bases.at(i, base.element).load(base.element, width))
            s = sft.widen(sfts.at(i, sft.element).load(sft.element, width))
            alpha = alpha_of(i, width)
            mixed = mix(b, s, alpha)
            if alphas != "all":
                mixed = alpha.equals(0.0).choose(b, alpha.equals(1.0).choose(s, mixed))
            stored, r = sft.store(mixed)
            out.at(i, sft.element).store(stored)
            return [about(x, x, total) for x, total in zip((s - b, r - b, b), totals, strict=True)]

        return fused

    def span(start: Value, stop: Value, totals: list[Value], alpha_of: Callable[[Value, int], Value]) -> list[Value]:
        whole = start + ((stop - start) & -LANES)
        wide = f.loop(start, whole, LANES, totals[:3], some(LANES, alpha_of))
        return wide + f.loop(whole, stop, 1, totals[3:], some(1, alpha_of))

    def one_row(number: Value, totals: list[Value]) -> list[Value]:
        begin, end = number * row - first, number * row + row - first
        start, stop = (begin > 0).choose(begin, 0), (end < count).choose(end, count)
        if alphas == "columns":
            return span(start, stop, totals, lambda i, width: factors.at(i - begin, FLOAT64).load(FLOAT64, width))
        alpha = factors.at(number, FLOAT64).load(FLOAT64)
        spread = alpha.spread(LANES)
        return span(start, stop, totals, lambda i, width: alpha if width == 1 else spread)

    totals = [f.constant(0.0, kind) for kind in (vector(FLOAT64, LANES), FLOAT64) for _ in range(3)]
    totals = f.loop(first // row, (first + count - 1) // row + 1, 1, totals, one_row)
    for i in range(3):
        sums.at(f.constant(i, INT64), FLOAT64).store(totals[i].total() + totals[3 + i])
    return f
