# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Weights in parts of bounded size, copied to ordinary memory."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable

import torch
from verl.workers.rollout.utils import ensure_async_iterator

Weights = Iterable[tuple[str, torch.Tensor]] | AsyncIterable[tuple[str, torch.Tensor]]


async def buckets(weights: Weights, max_bytes: int, dtype: torch.dtype | None = None) -> AsyncIterator[dict]:
    """Group named tensors, in order, into dictionaries of at most ``max_bytes`` (a larger tensor is alone in its own).

    Args:
        weights: full tensors by name, any device.
        max_bytes: bound on a part.
        dtype: what floating tensors are converted to, None to keep theirs.
    """
    bucket: dict[str, torch.Tensor] = {}
    size = 0
    async for name, tensor in ensure_async_iterator(weights):
        target = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        # Copied: it may be a view, whose whole storage would be sent, or in a buffer about to be reused.
        full = tensor.detach().to(device="cpu", dtype=target, copy=True).contiguous()
        if bucket and size + full.nbytes > max_bytes:
            yield bucket
            bucket, size = {}, 0
        bucket[name] = full
        size += full.nbytes
    if bucket:
        yield bucket
