# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Shrink-and-perturb, to be rounded with whatever else is done to a weight."""

import torch
from torch import Tensor

from .fusion import fuse


def shrink_and_perturb(base: Tensor | None, sft: Tensor, alpha: float, noise: Tensor | None) -> Tensor:
    """``alpha * sft + noise`` (Ash and Adams, arXiv 1910.08475 v4, section 4, with alpha for their lambda).

    Args:
        base: shrink towards these, ``alpha * sft + (1 - alpha) * base + noise``; None: towards zero, as in the paper.
        sft: any shape; dtypes as `fusion.fuse`.
        alpha: in [0, 1]; 1 does not shrink.
        noise: same shape, float64; None: none.

    Returns:
        A new tensor of the same shape in float64: two products and two sums, each rounded to float64 and no further.
        For one rounding to storage give it to `fusion.fuse` as the SFT side.
    """
    shrunk = fuse(torch.zeros_like(sft) if base is None else base, sft, alpha, torch.float64)
    return shrunk if noise is None else shrunk.add_(noise)
