# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What groups of answers to one prompt say: how many would pass, and how many need to."""

from math import comb

import torch
from torch import Tensor


def pass_at(passes: Tensor, group: int, k: int) -> Tensor:
    """The chance that at least one of k answers passes: ``1 - C(g - c, k) / C(g, k)``, unbiased (Chen et al.,
    arXiv 2107.03374, Eq. 1), as the product that their code has.

    Args:
        passes: ``[...]`` integer, how many of a prompt's answers passed, 0 to ``group``.
        group: g, answers to each prompt.
        k: 1 to ``group``.

    Returns:
        ``[...]`` float64.
    """
    failed = (group - passes.double())[..., None]
    # C(f, k) / C(g, k) is the product of (f - i) / (g - i), which has a factor 0 where f < k.
    steps = torch.arange(k, dtype=torch.float64)
    return 1 - ((failed - steps).clamp(min=0) / (group - steps)).prod(-1)


def pass_floor(group: float) -> float:
    """p*(g) = 1 - 2^(-1/g): at this pass rate half of the groups of g answers, or of g in the mean, have no pass (arXiv
    2606.18487)."""
    return 1.0 - 2.0 ** (-1 / group)


def best_of(scores: Tensor, k: int) -> Tensor:
    """The score that the best of k answers is expected to have, when k of a prompt's g are taken without replacement.

    Unbiased. With the scores in ascending order ``sum_i x_i * C(i - 1, k - 1) / C(g, k)``, the sum over i from k to g;
    of scores of 0 and 1 it is `pass_at`.

    Args:
        scores: ``[..., g]``, any floating dtype.
        k: 1 to g.

    Returns:
        ``[...]`` float64.
    """
    group = scores.shape[-1]
    weights = [comb(i, k - 1) / comb(group, k) for i in range(group)]
    return scores.double().sort(-1).values @ torch.tensor(weights, dtype=torch.float64)
