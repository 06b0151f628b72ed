# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How much each neuron contributes to a token's logit: direct logit attribution and gradient x activation.

Shapes: P kept positions, H hidden size, I inputs of a projection, R outputs of a projection. All results are float32.
"""

import torch
from torch import Tensor


def rms(x: Tensor, eps: float) -> Tensor:
    """The scale that an RMSNorm divides by: ``sqrt(mean(x ** 2) + eps)``.

    Args:
        x: ``[..., H]``, any floating dtype: what the norm reads.
        eps: the norm's own.

    Returns:
        ``[..., 1]`` float32.
    """
    return x.float().square().mean(-1, keepdim=True).add(eps).sqrt()


def through_norm(direction: Tensor, gain: Tensor, scale: Tensor) -> Tensor:
    """Pull a direction back through an RMSNorm whose scale is frozen at its observed value.

    With the scale frozen the norm is linear, ``y = gain * x / scale``, so that ``y . direction = x . result``. For the
    final norm and ``direction = W_U[y]`` the result is the ``v`` of arXiv 2606.09932 v1, Eq. 2 and 3.

    Args:
        direction: ``[P, H]``: for the final norm the rows of the unembedding for the target tokens.
        gain: ``[H]``: the norm's effective gain (``1 + weight`` where an architecture stores ``gain - 1``).
        scale: ``[P, 1]``, from `rms`.

    Returns:
        ``[P, H]`` float32.
    """
    return direction.float() * gain.float() / scale


def column_contributions(x: Tensor, weight: Tensor, v: Tensor) -> Tensor:
    """What each input neuron of a residual writer adds to the target's logit (arXiv 2606.09932 v1, Eq. 3): exact.

    Args:
        x: ``[P, I]``: the projection's input, ``x_c``.
        weight: ``[H, I]``.
        v: ``[P, H]``: from `through_norm`.

    Returns:
        ``[P, I]`` float32: ``x_c * (W[:, c] . v)``. Summed over I it is ``(W x) . v``, all that the projection adds.
    """
    return x.float() * (v @ weight.float())


def gradient_times_activation(activation: Tensor, gradient: Tensor) -> Tensor:
    """First-order share of each output neuron in the target's logit (arXiv 2606.09932 v1): a proxy, not exact.

    Args:
        activation: ``[P, R]``: the projection's output, bias included; of q and k before norm and rotation.
        gradient: ``[P, R]``: of the target logit with respect to it.

    Returns:
        ``[P, R]`` float32.
    """
    return activation.float() * gradient.float()


def is_finite(x: Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    return bool(torch.isfinite(x).all())
