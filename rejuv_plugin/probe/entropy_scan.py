# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How certain a model is at each response position, and where two models differ most."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..ops.distribution import entropy
from .gathered import gathered

LOGITS = 16 << 20
"""64 MiB of float32: logits exist for so many (position, token) pairs at a time, however large the vocabulary."""

LOGITS_ERROR = 1e-3
"""Relative to the largest logit, of two ways to the same ones."""


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
        found = torch.cat([entropy(logits_of(head(part), model)) for part in hidden.split(chunk)]).cpu()
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


def logits_of(output: Tensor, model: Any) -> Tensor:
    """What the model makes of its unembedding's output: Granite and Cohere scale it, Gemma 2 caps it."""
    config = model.config.get_text_config()
    factor, divisor, cap = (
        getattr(config, name, None) for name in ("logit_scale", "logits_scaling", "final_logit_softcapping")
    )
    logits = output * factor if factor else output
    logits = logits / divisor if divisor else logits
    return torch.tanh(logits / cap) * cap if cap else logits


@torch.inference_mode()
def check_logits(model: Any, ids: Sequence[int], key: str, fix: str) -> None:
    """Whether `logits_of` says what the model itself does, on a few tokens.

    Args:
        model: whole, on its device.
        ids: of some text; the first 8 are looked at.
        key: how errors name the model's checkpoint.
        fix: how to do without.

    Raises:
        InputError: named ``key``; a model that makes its logits in another way.
    """
    few = torch.tensor([ids[:8]], device=model.device)
    theirs = model(input_ids=few, use_cache=False).logits.float()
    hidden = model.base_model(input_ids=few, use_cache=False).last_hidden_state
    ours = logits_of(model.get_output_embeddings()(hidden), model).float()
    # What is not finite is another error, of the data that it happens on.
    error, size = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    if error > LOGITS_ERROR * size:
        raise InputError(
            key,
            "logits that are the unembedding's output, scaled as by Granite or Cohere or capped as by Gemma 2",
            f"{type(model).__name__}, whose logits differ from that by {error / size:.1%} of the largest",
            fix,
        )
