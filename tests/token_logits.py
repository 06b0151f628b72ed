# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Logits that make trouble, and what entropy and top-1 mass of them must be."""

import torch
from torch import Tensor

from rejuv_plugin.ops.distribution import entropy_and_top1


def case(dtype: torch.dtype, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments of `moments`: flat and peaked rows, a far one, some with tokens that cannot be; one row twice."""
    torch.manual_seed(0)
    logits = torch.randn(12, vocabulary).mul_(torch.tensor([[0.1], [1.0], [10.0], [60.0]]).repeat(3, 1)).to(dtype)
    logits[5] += 300
    logits[6, 10:] = -torch.inf
    logits[7, 1:] = -torch.inf
    return logits, torch.tensor([11, 0, 3, 5, 6, 7, 2, 2]), torch.linspace(0.5, 2.0, 8)


def check(sums: Tensor, logits: Tensor, temperature: Tensor) -> None:
    """Of the rows' sums over the whole vocabulary, against float64."""
    entropy, top1 = entropy_and_top1(sums)
    p = torch.distributions.Categorical(logits=logits.double() / temperature[:, None].double()).probs
    torch.testing.assert_close(entropy.double(), -torch.xlogy(p, p).sum(-1), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(top1.double(), p.amax(-1), rtol=1e-5, atol=0)
