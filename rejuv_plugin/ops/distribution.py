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


# Elements of a float32 block, of which `moments` holds three at a time: what stays in a CPU's cache (1.5 MiB; with a
# third less time than 48 MiB), and what keeps a GPU busy.
_BLOCK_CPU, _BLOCK_GPU = 1 << 17, 32 << 20


def peaks(logits: Tensor, rows: Tensor) -> Tensor:
    """The largest logit of each row.

    Args:
        logits: ``[n, vocabulary]``, or a shard of the vocabulary: then the maximum over shards is the row's.
        rows: ``[m]`` int64, which of the ``n``.

    Returns:
        ``[m]`` float32.
    """
    blocks = [logits[block].amax(-1).float() for block in _blocks(logits, rows)]
    return torch.cat(blocks) if blocks else logits.new_empty(0, dtype=torch.float32)


def moments(logits: Tensor, rows: Tensor, temperature: Tensor, peaks: Tensor | None = None) -> Tensor:
    """What entropy and top-1 mass of ``softmax(logits / temperature)`` are made of, in bounded memory.

    Args:
        logits, rows: as of `peaks`; of shards of a vocabulary the results add up.
        temperature: ``[m]`` float32, above 0.
        peaks: ``[m]`` float32, over the whole vocabulary; None if ``logits`` is the whole of it.

    Returns:
        ``[2, m]`` float32: the sum of ``exp(d)`` and of ``exp(d) * d``, with ``d = (logits - peak) / temperature``. NaN
        where the logits hold NaN or plus infinity.
    """
    found = logits.new_empty((2, len(rows)), dtype=torch.float32)
    start = 0
    for block in _blocks(logits, rows):
        part = slice(start, start := start + len(block))
        d = logits[block].float()
        top = d.amax(-1) if peaks is None else peaks[part]
        # As a limit 0 * -inf is 0, and exp(-1e4) is 0 in float32.
        d.sub_(top[:, None]).div_(temperature[part, None]).clamp_(min=-1e4)
        p = d.exp()
        found[0, part] = p.sum(-1)
        found[1, part] = p.mul_(d).sum(-1)
    return found


def entropy_and_top1(moments: Tensor) -> tuple[Tensor, Tensor]:
    """From `moments` over the whole vocabulary: entropies in nats, at least 0, and probabilities of the likeliest
    token, each ``[m]`` float32. With ``Z = sum exp(d)``: ``H = log Z - (sum exp(d) d) / Z``, where no term is negative,
    and ``max p = exp(0) / Z``."""
    total, weighted = moments
    return total.log() - weighted / total, 1 / total


def _blocks(logits: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
    elements = _BLOCK_CPU if logits.device.type == "cpu" else _BLOCK_GPU
    return rows.split(max(1, elements // max(1, logits.shape[-1]))) if len(rows) else ()
