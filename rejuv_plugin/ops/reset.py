# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The reset of chosen neurons, in one rounding with the fusion."""

import torch
from torch import Tensor

from .fusion import fuse


def reset_alpha(alpha: float, omega: float) -> float:
    """The alpha that a reset neuron is fused with.

    ``omega * base + (1 - omega) * fused`` (arXiv 2606.09932 v1, Eq. 5) of ``fused = alpha * sft + (1 - alpha) * base``
    (Eq. 1) is Eq. 1 again, with ``(1 - omega) * alpha``. So one formula, one rounding: where the paper would round the
    fused weights first, we do not. omega 1 gives 0, the base bit for bit; omega 0 gives alpha, no reset.
    """
    return (1.0 - omega) * alpha


def fuse_and_reset(base: Tensor, sft: Tensor, alpha: float, omega: float, chosen: Tensor, dtype: torch.dtype) -> Tensor:
    """Fuse, and reset the chosen elements.

    Args:
        base: any shape; dtypes as `fusion.fuse`.
        sft: same shape.
        alpha: weight of ``sft`` in [0, 1].
        omega: weight of ``base`` in the reset, in [0, 1].
        chosen: same shape, bool: elements of neurons in the reset set.
        dtype: dtype of the result.

    Returns:
        A new tensor of the same shape; elements that are not chosen have the bits of `fusion.fuse`.

    Raises:
        ValueError: as `fusion.fuse`, or omega is outside [0, 1].
    """
    if not 0.0 <= omega <= 1.0:
        raise ValueError(f"omega is {omega}, not in [0, 1]")
    fused = fuse(base, sft, alpha, dtype)
    if not chosen.any():
        return fused
    return torch.where(chosen, fuse(base, sft, reset_alpha(alpha, omega), dtype), fused)
