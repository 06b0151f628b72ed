# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Tokens from distributions, by a given uniform each."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def keyed_uniforms(key: bytes, count: int) -> npt.NDArray[np.float64]:
    """Random numbers that depend on a key alone: float64 ``[count]`` in [0, 1). More begin with the same ones.

    Args:
        key: 16 bytes, as a hash has them.
        count: how many.
    """
    # Philox is counter-based: the i-th number depends on the key and i only, whatever the length asked for.
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key, dtype=np.uint64))).random(count)


def inverse_cdf(log_probs: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one token per row by inverting the cumulative distribution, in the order of token ids.

    One uniform decides one token. Logits that differ in their last bits (as they do between batch shapes) change the
    token only when the uniform falls within that rounding of a boundary; two models that are close choose mostly alike.

    Args:
        log_probs: float64 ``[rows, vocabulary]``; minus infinity for tokens that must not be drawn.
        uniforms: float64 ``[rows]`` in [0, 1), on the same device.

    Returns:
        Token ids, int64 ``[rows]``, each of a token with a probability above 0.
    """
    cumulative = log_probs.exp().cumsum(-1)
    total = cumulative[:, -1]
    # Strictly below the total, so that rounding can never point past the last token with any probability.
    target = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target.unsqueeze(1), right=True).squeeze(1)
