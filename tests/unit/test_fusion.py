# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Fusion against an independent reference, bit for bit."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from fusion_reference import FORMATS, bits_of, canonical_bits, fuse_reference, round_to_bits, value_of

from rejuv_plugin.ops.drift import Drift, drift
from rejuv_plugin.ops.fusion import fuse, round_once

ALPHAS = [0.0, 0.37, 0.4, 0.45, 0.5, 0.6, 1.0]
DTYPES = list(FORMATS)


def from_bits(bits: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    width = np.uint32 if dtype == torch.float32 else np.uint16
    return torch.from_numpy(bits.astype(width)).view(dtype)


def any_bits(dtype: torch.dtype, count: int, seed: int) -> torch.Tensor:
    """Uniform over bit patterns: every exponent alike, subnormals, infinities and NaNs among them."""
    rng = np.random.default_rng(seed)
    return from_bits(rng.integers(0, 2 ** (1 + sum(FORMATS[dtype])), count), dtype)


def edges(dtype: torch.dtype) -> torch.Tensor:
    """Zeros, subnormals, powers of two, the largest numbers, infinities and NaN, both signs."""
    exponent_bits, fraction_bits = FORMATS[dtype]
    infinity = (2**exponent_bits - 1) << fraction_bits
    one = (2 ** (exponent_bits - 1) - 1) << fraction_bits
    smallest_normal = 1 << fraction_bits
    near = [0, 1, 2, 3, smallest_normal - 1, smallest_normal, smallest_normal + 1, one - 1, one, one + 1, one + 2]
    bits = np.array([*near, infinity - 2, infinity - 1, infinity, infinity + 1])
    return from_bits(np.concatenate([bits, bits | (1 << (exponent_bits + fraction_bits))]), dtype)


def pairs(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Base and SFT: like weights, any bit patterns, and all pairs of edges."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(200_000, generator=generator, dtype=torch.float64) * 0.02
    tuned = weights + torch.randn(200_000, generator=generator, dtype=torch.float64) * 1e-3
    edge = edges(dtype)
    base = torch.cat([weights.to(dtype), any_bits(dtype, 200_000, 1), edge.repeat(len(edge))])
    sft = torch.cat([tuned.to(dtype), any_bits(dtype, 200_000, 2), edge.repeat_interleave(len(edge))])
    return base, sft


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("alpha", [a for a in ALPHAS if 0 < a < 1])
def test_no_element_differs_from_the_reference(alpha: float, dtype: torch.dtype) -> None:
    base, sft = pairs(dtype)
    fused = fuse(base, sft, alpha, dtype)
    assert fused.dtype == dtype
    assert np.count_nonzero(canonical_bits(fused) != fuse_reference(base, sft, alpha, dtype)) == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("base_dtype", DTYPES, ids=str)
def test_base_and_sft_may_differ_in_dtype(base_dtype: torch.dtype, dtype: torch.dtype) -> None:
    base, sft = any_bits(base_dtype, 100_000, 3), any_bits(dtype, 100_000, 4)
    for alpha in (0.4, 0.5):
        assert np.array_equal(canonical_bits(fuse(base, sft, alpha, dtype)), fuse_reference(base, sft, alpha, dtype))
    # At alpha 0 the SFT side must not matter, not even an infinity of it.
    cast = round_to_bits(value_of(bits_of(base), base_dtype), dtype)
    assert np.array_equal(canonical_bits(fuse(base, sft, 0.0, dtype)), cast)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("alpha", "side"), [(0.0, 0), (1.0, 1)])
def test_alpha_0_and_1_are_bitwise_identities(alpha: float, side: int, dtype: torch.dtype) -> None:
    both = pairs(dtype)
    fused = fuse(*both, alpha, dtype)
    assert np.array_equal(bits_of(fused), bits_of(both[side])), "a NaN payload or the sign of a zero changed"
    assert fused.data_ptr() != both[side].data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_near_ties_is_single(dtype: torch.dtype) -> None:
    """All midpoints between neighbours, and float64's closest numbers on either side of them."""
    infinity = (2 ** FORMATS[dtype][0] - 1) << FORMATS[dtype][1]
    values = value_of(np.arange(infinity), dtype)
    # The last midpoint is the one to infinity, one more step of the same size.
    ties = values + np.append(np.diff(values), values[-1] - values[-2]) / 2
    x = np.concatenate([ties, np.nextafter(ties, 0), np.nextafter(ties, np.inf), [5e-324, 1e-60, 1e300, np.inf]])
    x = np.concatenate([x, -x])
    assert np.array_equal(canonical_bits(round_once(torch.from_numpy(x), dtype)), round_to_bits(x, dtype))


def test_the_obvious_cast_rounds_twice() -> None:
    """So that the tests above are known to be able to fail."""
    above_tie = torch.tensor([1 + 2**-8 + 2**-40], dtype=torch.float64)
    assert round_once(above_tie, torch.bfloat16).item() == 1 + 2**-7
    assert above_tie.to(torch.bfloat16).item() == 1.0

    # And through fuse, for bfloat16 inputs: a sum a little off a tie.
    base, sft = any_bits(torch.bfloat16, 2_000_000, 5), any_bits(torch.bfloat16, 2_000_000, 6)
    sft = torch.where(torch.rand(len(sft), generator=torch.Generator().manual_seed(0)) < 0.5, base * 1.01, sft)
    naive = (0.4 * sft.double() + (1 - 0.4) * base.double()).bfloat16()
    reference = fuse_reference(base, sft, 0.4, torch.bfloat16)
    assert np.count_nonzero(canonical_bits(naive) != reference) > 0
    assert np.array_equal(canonical_bits(fuse(base, sft, 0.4, torch.bfloat16)), reference)


def test_the_reference_agrees_with_exact_fractions() -> None:
    base, sft = pairs(torch.bfloat16)
    alpha, values = 0.37, []
    for b, s in zip(base[:300].tolist(), sft[:300].tolist(), strict=True):
        # float() of a Fraction is correctly rounded: the two products and the sum of the contract.
        products = float(Fraction(alpha) * Fraction(s)), float(Fraction(1 - alpha) * Fraction(b))
        values.append(Fraction(float(sum(map(Fraction, products)))))
    for value, bits in zip(values, fuse_reference(base[:300], sft[:300], alpha, torch.bfloat16), strict=True):
        chosen, below, above = (Fraction(float(value_of(bits + step, torch.bfloat16))) for step in (0, -1, 1))
        assert abs(value - chosen) <= min(abs(value - below), abs(value - above))


def test_float64_is_kept() -> None:
    base, sft = torch.randn(2, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = 0.4 * sft.numpy() + (1 - 0.4) * base.numpy()
    assert np.array_equal(fuse(base, sft, 0.4, torch.float64).numpy(), expected)


def test_inputs_are_not_changed_and_shapes_are_kept() -> None:
    base, sft = torch.ones(3, 4, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64)
    assert fuse(base, sft, 0.25, torch.float64).shape == (3, 4)
    assert base.eq(1).all()
    assert sft.eq(0).all()


@pytest.mark.parametrize(
    ("base", "sft", "alpha", "dtype", "says"),
    [
        (torch.ones(2), torch.ones(3), 0.5, torch.float32, "shape"),
        (torch.ones(2), torch.ones(2).long(), 0.5, torch.float32, "int64"),
        (torch.ones(2), torch.ones(2), 0.5, torch.int8, "int8"),
        (torch.ones(2), torch.ones(2), 1.5, torch.float32, "alpha is 1.5"),
        (torch.ones(2), torch.ones(2), float("nan"), torch.float32, "alpha is nan"),
    ],
)
def test_misuse_is_refused(base, sft, alpha, dtype, says) -> None:
    with pytest.raises(ValueError, match=says):
        fuse(base, sft, alpha, dtype)


def test_drift_adds_up_over_parts() -> None:
    base, x = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([3.0, 4.0, 1.0])
    assert drift(x, base).relative == pytest.approx(0.2)
    assert drift(x[:2], base[:2]) + drift(x[2:], base[2:]) == drift(x, base)
    assert Drift().relative == 0.0
    assert drift(torch.ones(1), torch.zeros(1)).relative == float("inf")
