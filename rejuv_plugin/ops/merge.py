# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Task vectors made sparse, as mergekit does it (the extra ``merge``): to compare fusion with."""

import hashlib

import torch
from torch import Tensor


def sparse_task_vector(
    base: Tensor, sft: Tensor, alpha: float, method: str, density: float, seed: int, stream: str
) -> Tensor:
    """``base + alpha * sparse(sft - base)``: fusion (arXiv 2606.09932, Eq. 1) of a part of the changes.

    Args:
        base: any shape, the whole tensor; any floating dtype.
        sft: same shape.
        alpha: in [0, 1]: mergekit's lambda.
        method: ``ties``: keeps the share ``density`` of the changes that is largest in magnitude (Yadav et al., arXiv
            2306.01708, section 4; with one task vector no signs are at odds). ``dare``: keeps each change with
            probability ``density`` and divides it by that (Yu et al., arXiv 2311.03099, section 3).
        density: in (0, 1].
        seed: of ``dare``.
        stream: decides with the seed what is dropped, as a tensor's name does.

    Returns:
        A new tensor of the same shape in float64, not rounded further. It is mergekit's arithmetic: ``dare`` has its
        changes in float32, and which of several equal magnitudes ``ties`` keeps is torch's choice, which another
        processor may make otherwise. Memory: some 50 bytes an element.

    Raises:
        ImportError: mergekit is not installed.
    """
    from mergekit.merge_methods import merge_tensors

    parameters = {"density": density, "weight": 1.0, "lambda": alpha}
    if method == "ties":
        return merge_tensors([base, sft], "ties", parameters=parameters, base_index=0, dtype=torch.float64)
    # mergekit would restore the L1 norm, by a sum whose last bits depend on threads; the paper divides by the density.
    parameters |= {"rescale": False, "lambda": alpha / density}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed} {stream}".encode()).digest()[:8], "little") >> 1)
        return merge_tensors([base, sft], "dare_linear", parameters=parameters, base_index=0, dtype=torch.float64)
