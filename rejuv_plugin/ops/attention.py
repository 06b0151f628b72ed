# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a query attends to."""

import torch
from torch import Tensor


def attention_entropy(
    query: Tensor, key: Tensor, visible: Tensor, scale: float, softcap: float | None = None
) -> Tensor:
    """Entropy in nats of the attention of some queries: of ``softmax(scale * query @ key)`` over the visible keys.

    Args:
        query: ``[heads, queries, d]``, any floating dtype, positions applied.
        key: ``[groups, keys, d]``; heads is a multiple of groups, and each group serves consecutive heads.
        visible: ``[queries, keys]`` bool, at least one key for each query.
        scale: of the logits.
        softcap: Gemma 2's: logits are ``softcap * tanh(logits / softcap)``.

    Returns:
        ``[heads, queries]`` float64, between 0 and the logarithm of the number of visible keys.
    """
    heads, queries, size = query.shape
    grouped = query.double().reshape(len(key), -1, size)
    logits = (grouped @ key.double().transpose(1, 2) * scale).reshape(heads, queries, -1)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    p = logits.masked_fill(~visible, -torch.inf).softmax(-1)
    return torch.special.entr(p).sum(-1)
