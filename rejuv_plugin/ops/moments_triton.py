# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""`distribution.moments` on a GPU: one kernel that reads each logit once and writes three numbers a row.

torch's own operators would read and write 64 bytes for a logit of two. Triton comes with torch's builds for GPUs; the
kernel is compiled when it is first needed, which takes a C compiler, as ``torch.compile`` does.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Logits of a row that are taken at a time, 16 by a thread.
_BLOCK, _WARPS = 4096, 8


def moments(logits: Tensor, rows: Tensor, temperature: Tensor) -> Tensor:
    """See `distribution.moments`. No memory but the result's, and nothing waits for the device."""
    found = torch.empty((3, len(rows)), dtype=torch.float32, device=logits.device)
    rows, temperature = rows.contiguous(), temperature.contiguous()
    if len(rows):
        _rows[(len(rows),)](
            logits, *logits.stride(), rows, temperature, found, len(rows), logits.shape[1], _BLOCK, num_warps=_WARPS
        )
    return found


@triton.jit
def _far(d):  # type: ignore[no-untyped-def]
    # As a limit 0 * inf is 0, and exp(-1e4) is 0 in float32.
    return tl.clamp(d, -1e4, 1e4, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _rows(logits, stride, step, rows, temperature, found, n, vocabulary, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Each lane has its own peak and sums relative to it, which are brought together at the end."""
    at = tl.program_id(0)
    start = logits + tl.load(rows + at) * stride
    scale = 1 / tl.load(temperature + at)
    peak = tl.full([BLOCK], -3.4028234663852886e38, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    weighted = tl.zeros([BLOCK], tl.float32)
    for first in range(0, vocabulary, BLOCK):
        column = first + tl.arange(0, BLOCK)
        x = tl.load(start + column * step, mask=column < vocabulary, other=-float("inf")).to(tl.float32)
        d = _far((x - peak) * scale)
        higher = d > 0
        # Of the two, the lower one's share of the higher one: what was summed up moves to a new peak, or x is added.
        e = tl.exp(-tl.abs(d))
        weighted = tl.where(higher, (weighted - d * total) * e, weighted + d * e)
        total = tl.where(higher, total * e + 1, total + e)
        peak = tl.where(higher, x, peak)
    top = tl.max(peak, 0)
    d = _far((peak - top) * scale)
    e = tl.exp(d)
    tl.store(found + at, top)
    tl.store(found + n + at, tl.sum(total * e, 0))
    tl.store(found + 2 * n + at, tl.sum((weighted + d * total) * e, 0))
