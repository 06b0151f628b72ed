# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Fusion of bfloat16 in float32, with the bits of float64: where they could differ, float64 decides.

Write ``x`` for what the contract rounds to storage, ``fl(fl(alpha * s) + fl(beta * b))`` in float64, and ``u`` for
``2 ** -24``. Rounding is monotonic: if a number below ``x`` and one above round to the same bfloat16, so does ``x``.

*Any alpha.* In float32, ``s`` and ``b`` are exact, ``alpha`` and ``beta`` within ``u`` of theirs (`SMALLEST_ALPHA`),
each product and their sum within another ``u``: with ``t = |alpha * s| + |beta * b|``, float32's ``y`` is within
``3.01 u t`` of ``alpha * s + beta * b``, and that within ``4 * 2 ** -53 t`` of ``x``. Rounding the bounds ``y - e`` and
``y + e`` takes ``1.02 u t``, and ``t`` is known within ``5 u``, so that ``e = 8 u t`` is safe with room to spare. Below
the normal numbers, errors are absolute and under ``2 ** -147``, far less than the `_TINY` that ``e`` has besides.
Because ``x`` is strictly between the bounds they may be rounded half up: if a tie between two bfloat16 could be ``x``,
they round differently.

*Multiples of 2 ** -16*, such as 0.25, where ties between two bfloat16 are common. Products have 24 bits or fewer and
are exact, so ``y`` is ``x`` rounded to float32, unless that has no error at all. Ties between two bfloat16 are float32
numbers; so if ``y`` is no tie, ``x`` is on the same side of every tie as ``y`` and rounds like it. If it is one, and
has an error, float64 decides. It has none if and only if ``y - p == q`` and ``y - q == p``: the difference with the
larger product is exact (Dekker, Numer. Math. 18, 1971).

*0.5*, the default, leaves no doubt. ``x`` is the mean, rounded to float64 and then to 8 bits; ``y`` is rounded to
float32 on the way. For a sum of two numbers of 8 bits a detour through 17 or more changes nothing (Figueroa, SIGNUM
Newsletter 30(3), 1995), halves are exact (their last bit is worth ``2 ** -134`` or more, float32's ``2 ** -149``), and
where bfloat16 has fewer bits, below its normal numbers, sums are exact.

The bits therefore do not depend on fused multiply-adds, which processors have or not.
"""

from functools import reduce
from operator import or_

from .kernel_exact import BFLOAT16, mix
from .llvm import FLOAT32, FLOAT64, INT16, INT32, INT64, POINTER, Function, Value, about, vector

SMALLEST_ALPHA = 2.0**-126
"""Smaller ones are subnormal in float32. Of ``1 - alpha`` there are none so small."""

SMALLEST_SQUARE = 2.0**-125
"""Sums with less than this for an element may lack a millionth: float32 loses ``2 ** -150`` of each square."""

_LANES = 8
_BLOCK = 64
"""Elements whose doubts fill a word; and few enough that their squares, 8 in each sum, may be added in float32."""

_HIGH = 0xFFFF0000
_MAGNITUDE = 0x7FFFFFFF
_TINY = 2.0**-130
_UNIT = 2.0**-24


def way(alpha: float) -> str:
    """``mean``, ``exact`` or ``any``: the fastest that is right for ``alpha``."""
    if alpha == 0.5:
        return "mean"
    # Products of bfloat16 with such an alpha and with what it lacks to 1 are exact in float32.
    return "exact" if alpha * 2.0**16 == int(alpha * 2.0**16) else "any"


def fuse(name: str, way: str) -> Function:
    """A function of base, SFT, output (bfloat16), number of elements, alpha, and the address of three float64 sums.

    Args:
        name: of the function.
        way: which alphas it is for, as `way` says; ``any`` is right for all.
    """
    f = Function(name, POINTER, POINTER, POINTER, INT64, FLOAT64, POINTER)
    bases, sfts, out, count, alpha, sums = f.arguments
    a, b = ((x.to(FLOAT32)).spread(_LANES) for x in (alpha, 1.0 - alpha))
    rounded = {"mean": _mean, "exact": _with_exact_products, "any": _between_bounds}[way]

    def pairs(i: Value, partial: list[Value]) -> tuple[list[Value], list[Value]]:
        """Two elements in each lane: the lower and the upper half of 32 bits, each already a float32's upper half.

        The sums with them, and for each half bits whose upper half is not 0 where the output may be wrong.
        """
        base, sft = (data.at(i, INT16).load(INT32, _LANES, aligned=2) for data in (bases, sfts))
        results, doubts = [], []
        for half in (lambda x: x << 16, lambda x: x & _HIGH):
            x, y = half(base).bits(FLOAT32), half(sft).bits(FLOAT32)
            bits, *doubt = rounded(a, b, x, y)
            results.append(bits & _HIGH)
            doubts += doubt
            r = results[-1].bits(FLOAT32)
            partial = [about(d, d, total) for d, total in zip((y - x, r - x, x), partial, strict=True)]
        low, high = results
        out.at(i, INT16).store((low >> 16) | high, aligned=2)
        return partial, doubts

    def exact(i: Value) -> tuple[Value, Value, Value]:
        """Base, SFT and output, which it stores, of one element, all in float64."""
        base, sft = (BFLOAT16.widen(data.at(i, INT16).load(INT16)) for data in (bases, sfts))
        stored, r = BFLOAT16.store(mix(base, sft, alpha))
        out.at(i, INT16).store(stored)
        return base, sft, r

    def block(start: Value, totals: list[Value]) -> list[Value]:
        *totals, corrected = totals
        partial, words = [nothing] * 3, []
        for first in range(0, _BLOCK, 2 * _LANES):
            partial, doubts = pairs(start + first, partial)
            if doubts:
                low, high = doubts
                doubtful = ((low >> 16) | (high & _HIGH)).bitcast(vector(INT16, 2 * _LANES)).differs(0)
                words.append(doubtful.bitcast(INT16).to(INT64) << first)

        def decide_one(bit: Value, corrected: Value) -> Value:
            i = start + bit
            before = BFLOAT16.widen(out.at(i, INT16).load(INT16))
            base, _, r = exact(i)
            return corrected + ((r - base) * (r - base) - (before - base) * (before - base))

        if words:
            corrected = f.each_bit(reduce(or_, words), corrected, decide_one)
        return [total + part.to(FLOAT64) for total, part in zip(totals, partial, strict=True)] + [corrected]

    def alone(i: Value, totals: list[Value]) -> list[Value]:
        base, sft, r = exact(i)
        return [about(x, x, total) for x, total in zip((sft - base, r - base, base), totals, strict=True)]

    nothing = f.constant(0.0, vector(FLOAT32, _LANES))
    zeros = [f.constant(0.0, vector(FLOAT64, _LANES))] * 3
    whole = count & -_BLOCK
    *totals, corrected = f.loop(0, whole, _BLOCK, [*zeros, f.constant(0.0, FLOAT64)], block)
    totals = [total.total() for total in totals]
    totals = f.loop(whole, count, 1, [totals[0], totals[1] + corrected, totals[2]], alone)
    for i, total in enumerate(totals):
        sums.at(f.constant(i, INT64), FLOAT64).store(total)
    return f


Rounded = tuple[Value] | tuple[Value, Value]
"""Bits whose upper half is the rounded sum; and, but where there is no doubt, bits whose upper half is not 0 where that
may be wrong."""


def _mean(a: Value, b: Value, base: Value, sft: Value) -> Rounded:
    return (_half_to_even((base + sft) * 0.5),)


def _between_bounds(a: Value, b: Value, base: Value, sft: Value) -> Rounded:
    q = b * base
    y = about(a, sft, q)
    size = about(a, _magnitude(sft), _magnitude(q))
    error = about(size, 8 * _UNIT, _TINY)
    upper, lower = ((bound.bits(INT32) + 0x8000) for bound in (y + error, y - error))
    return upper, upper ^ lower


def _with_exact_products(a: Value, b: Value, base: Value, sft: Value) -> Rounded:
    p, q = a * sft, b * base
    y = p + q
    inexact = (y - p).differs(q) | (y - q).differs(p)
    tie = (y.bits(INT32) & 0xFFFF).equals(0x8000)
    return _half_to_even(y), (tie & inexact).mask(INT32)


def _half_to_even(y: Value) -> Value:
    """Bits whose upper half is ``y``, rounded."""
    bits = y.bits(INT32)
    return bits + ((bits >> 16) & 1) + 0x7FFF


def _magnitude(x: Value) -> Value:
    return (x.bits(INT32) & _MAGNITUDE).bits(FLOAT32)
