# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Ranks of a matrix of activations, from its singular values."""

import torch
from torch import Tensor


def singular_values(gram: Tensor) -> Tensor:
    """Singular values of A from its Gram matrix ``A.T @ A``.

    Args:
        gram: ``[H, H]`` float64, not changed. A sum of the Gram matrices of parts of A's rows is that of A.

    Returns:
        ``[H]`` float64, ascending. Eigenvalues below H times float64's resolution of the largest are rounding, and 0
        here; so singular values below 1e-8 times the square root of H of the largest one are not seen.
    """
    eigenvalues = torch.linalg.eigvalsh(gram)
    noise = len(gram) * torch.finfo(gram.dtype).eps * eigenvalues[-1].clamp(min=0)
    return torch.where(eigenvalues > noise, eigenvalues, 0).sqrt()


def effective_rank(sigma: Tensor) -> Tensor:
    """``exp(H(sigma / sum(sigma)))``, H the entropy in nats (Roy and Vetterli, EUSIPCO 2007).

    Args:
        sigma: ``[H]`` singular values, at least one of them above 0.

    Returns:
        A scalar between 1 and H.
    """
    p = sigma / sigma.sum()
    return torch.special.entr(p).sum().exp()


def threshold_rank(sigma: Tensor, share: float = 0.99) -> Tensor:
    """The least number of singular values whose sum is ``share`` of the sum of all: srank with delta = 1 - share of
    Kumar et al., arXiv 2010.14498, Sec. 3. It is not the stable rank.

    Args:
        sigma: ``[H]``, in any order, at least one of them above 0.
        share: of the sum.

    Returns:
        A scalar int64 between 1 and H.
    """
    mass = sigma.sort(descending=True).values.cumsum(0)
    return (mass < share * mass[-1]).sum() + 1


def stable_rank(sigma: Tensor) -> Tensor:
    """``|A|_F^2 / |A|_2^2`` (Rudelson and Vershynin, J. ACM 54(4), 2007).

    Args:
        sigma: ``[H]``, in any order, at least one of them above 0.

    Returns:
        A scalar between 1 and H.
    """
    return sigma.square().sum() / sigma.max().square()
