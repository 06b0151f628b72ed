# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a next-token distribution is like."""

import torch
from torch import Tensor


def entropy(logits: Tensor) -> Tensor:
    """Entropy of ``softmax(logits)`` over the last dimension, in nats.

    Args:
        logits: ``[..., vocabulary]``, any floating dtype. An entry of minus infinity has probability 0.

    Returns:
        ``[...]`` float32, at least 0; NaN where the logits hold NaN or plus infinity.
    """
    log_p = torch.log_softmax(logits.float(), -1)
    # 0 * -inf is NaN, but its limit is 0.
    return -(log_p.exp() * log_p.clamp(min=torch.finfo(torch.float32).min)).sum(-1)
