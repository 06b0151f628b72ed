# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How certain a model is at each response position, and where two models differ most."""

from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..ops.distribution import entropy
from .gathered import gathered

LOGITS = 16 << 20
"""64 MiB of float32: logits exist for so many (position, token) pairs at a time, however large the vocabulary."""


@torch.inference_mode()
def entropies(model: Any, hidden: Tensor, key: str, number: int) -> Tensor:
    """Entropy of the next-token distribution, in nats.

    Args:
        model: from `load.load_model`.
        hidden: ``[n, H]``: what the unembedding reads, at n positions.
        key: how errors name the model's checkpoint.
        number: of the example, for errors.

    Returns:
        ``[n]`` float32, on the CPU.

    Raises:
        InputError: named ``key``; NaN or infinite activations.
    """
    head = model.get_output_embeddings()
    chunk = max(1, LOGITS // head.weight.shape[0])
    with gathered(head):
        found = torch.cat([entropy(capped(head(part), model)) for part in hidden.split(chunk)]).cpu()
    if not torch.isfinite(found).all():
        raise not_finite(key, number)
    return found


def largest_gaps(base: Tensor, sft: Tensor, count: int) -> list[int]:
    """Ascending indices of the ``count`` largest ``|sft - base|`` of two ``[n]`` tensors (arXiv 2606.09932 v1, Sec. on
    reset, step 1); all if there are fewer, of equals the earlier."""
    order = torch.sort((sft - base).abs(), descending=True, stable=True).indices
    return sorted(order[:count].tolist())


def not_finite(key: str, number: int) -> InputError:
    """The error for a model that overflows on the calibration data."""
    return InputError(
        key,
        "finite activations on the calibration data",
        f"NaN or infinity in example {number}",
        "check the checkpoint: does it generate text?",
    )


def capped(logits: Tensor, model: Any) -> Tensor:
    """What the model makes of its unembedding's output: Gemma 2 caps its logits."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    return torch.tanh(logits / cap) * cap if cap else logits
