# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The fusion contract once more, in numpy and integers: shares no cast and no line with `rejuv_plugin.ops.fusion`."""

import numpy as np
import torch

# Bits of exponent and of fraction; the encodings are IEEE 754's.
FORMATS = {torch.bfloat16: (8, 7), torch.float16: (5, 10), torch.float32: (8, 23)}
_BITS = {torch.bfloat16: torch.uint16, torch.float16: torch.uint16, torch.float32: torch.uint32}


def bits_of(x: torch.Tensor) -> np.ndarray:
    """The stored bit patterns, as unsigned integers in int64."""
    return x.view(_BITS[x.dtype]).numpy().astype(np.int64)


def value_of(bits: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """Decode bit patterns to float64, exactly."""
    exponent_bits, fraction_bits = FORMATS[dtype]
    bias = 2 ** (exponent_bits - 1) - 1
    fraction = bits & (2**fraction_bits - 1)
    exponent = (bits >> fraction_bits) & (2**exponent_bits - 1)
    sign = np.where(bits >> (exponent_bits + fraction_bits), -1.0, 1.0)
    implicit = np.where(exponent > 0, 2**fraction_bits, 0)
    finite = np.ldexp((fraction + implicit).astype(np.float64), np.maximum(exponent, 1) - bias - fraction_bits)
    special = np.where(fraction > 0, np.nan, np.inf)
    return sign * np.where(exponent == 2**exponent_bits - 1, special, finite)


def round_to_bits(x: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """Round float64 to nearest even and encode; every NaN becomes -1."""
    exponent_bits, fraction_bits = FORMATS[dtype]
    smallest = 2 - 2 ** (exponent_bits - 1)
    infinity = (2**exponent_bits - 1) << fraction_bits
    magnitude = np.where(np.isfinite(x), np.abs(x), 0.0)
    exponent = np.maximum(np.frexp(magnitude)[1] - 1, smallest)
    exponent = np.where(magnitude == 0, smallest, exponent)
    # A multiple of the last place, exactly; rint rounds to nearest even; a carry runs into the exponent as it should.
    steps = np.rint(np.ldexp(magnitude, fraction_bits - exponent)).astype(np.int64)
    bits = np.minimum(((exponent - smallest).astype(np.int64) << fraction_bits) + steps, infinity)
    bits = np.where(np.isinf(x), infinity, bits)
    bits = bits | (np.signbit(x).astype(np.int64) << (exponent_bits + fraction_bits))
    return np.where(np.isnan(x), -1, bits)


def fuse_reference(base: torch.Tensor, sft: torch.Tensor, alpha: float, dtype: torch.dtype) -> np.ndarray:
    """The bit patterns of the fused tensor; every NaN becomes -1."""
    with np.errstate(invalid="ignore", over="ignore"):
        x = alpha * value_of(bits_of(sft), sft.dtype) + (1.0 - alpha) * value_of(bits_of(base), base.dtype)
    return round_to_bits(x, dtype)


def canonical_bits(x: torch.Tensor) -> np.ndarray:
    """The bit patterns of ``x``, every NaN as -1."""
    bits = bits_of(x)
    return np.where(np.isnan(value_of(bits, x.dtype)), -1, bits)
