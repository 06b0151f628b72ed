# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a next-token distribution is like."""

from functools import cache
from importlib.util import find_spec

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


# Elements of a float32 block, of which `moments` holds three at a time: what stays in a CPU's cache (1.5 MiB; with a
# third less time than 48 MiB), and what keeps an accelerator busy.
_BLOCK_CPU, _BLOCK_OTHER = 1 << 17, 32 << 20
_LOWEST = torch.finfo(torch.float32).min


def moments(logits: Tensor, rows: Tensor, temperature: Tensor) -> Tensor:
    """What entropy and top-1 mass of ``softmax(logits / temperature)`` are made of, in bounded memory: none on a GPU
    with Triton, else three float32 blocks.

    Args:
        logits: ``[n, vocabulary]``, any floating dtype; or a shard of the vocabulary, see `rebased`.
        rows: ``[m]`` int64, which of the ``n``.
        temperature: ``[m]`` float32, above 0.

    Returns:
        ``[3, m]`` float32: the peak, which is the largest logit of the row, the sum of ``exp(d)`` and that of
        ``exp(d) * d``, with ``d = (logits - peak) / temperature``. The sums are NaN where the logits hold NaN or plus
        infinity.
    """
    if logits.is_cuda and _has_triton():
        from . import moments_triton

        return moments_triton.moments(logits, rows, temperature)
    found = logits.new_empty((3, len(rows)), dtype=torch.float32)
    start = 0
    elements = _BLOCK_CPU if logits.device.type == "cpu" else _BLOCK_OTHER
    for block in rows.split(max(1, elements // max(1, logits.shape[-1]))):
        part = slice(start, start := start + len(block))
        d = logits[block].float()
        # A shard may have none but impossible tokens.
        peak = d.amax(-1).clamp(min=_LOWEST)
        # As a limit 0 * -inf is 0, and exp(-1e4) is 0 in float32.
        d.sub_(peak[:, None]).div_(temperature[part, None]).clamp_(min=-1e4)
        p = d.exp()
        found[0, part] = peak
        found[1, part] = p.sum(-1)
        found[2, part] = p.mul_(d).sum(-1)
    return found


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def rebased(moments: Tensor, peak: Tensor, temperature: Tensor) -> Tensor:
    """Sums of a shard of the vocabulary relative to the peak over all shards; then those of the shards add up.

    Args:
        moments: ``[3, m]`` of `moments`.
        peak: ``[m]`` float32, the largest of the shards'.
        temperature: ``[m]`` float32, that of `moments`.

    Returns:
        ``[2, m]`` float32.
    """
    own, total, weighted = moments
    d = ((own - peak) / temperature).clamp(min=-1e4)
    return torch.stack([total, weighted + d * total]) * d.exp()


def entropy_and_top1(sums: Tensor) -> tuple[Tensor, Tensor]:
    """From the two sums of `moments` over the whole vocabulary, ``[2, m]``: entropies in nats, at least 0, and
    probabilities of the likeliest token, each ``[m]`` float32. With ``Z = sum exp(d)``:
    ``H = log Z - (sum exp(d) d) / Z``, where no term is negative, and ``max p = exp(0) / Z``."""
    total, weighted = sums
    return total.log() - weighted / total, 1 / total
