# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A fixed sample of a tensor's elements: the same in every run, at any world size, wherever the tensor lies."""

from pathlib import Path

import numpy as np
import torch
import xxhash
from torch import Tensor

from ..checkpoint.headers import TORCH_DTYPES, TensorInfo
from ..checkpoint.pieces import read_exactly

RUN = 64
"""Elements that lie side by side are taken together: on a disk a run costs what one element does."""


def places(name: str, elements: int, sample: int) -> Tensor:
    """Flat indices of about ``sample`` of a tensor's elements, all if it has no more; drawn by its name alone.

    Returns:
        ``[n]`` int64, ascending, in runs of `RUN`.
    """
    runs = max(1, sample // RUN)
    if elements <= max(sample, RUN * runs):
        return torch.arange(elements)
    # Not torch's generator: training draws from that.
    draw = np.random.default_rng(xxhash.xxh3_64_intdigest(name.encode()))
    starts = np.sort(draw.choice(elements // RUN, runs, replace=False, shuffle=False)) * RUN
    return torch.from_numpy((starts[:, None] + np.arange(RUN)).reshape(-1))


def read(root: Path, info: TensorInfo, at: Tensor) -> Tensor:
    """The elements at `places` ``at`` of a tensor in a safetensors file, float64 on the CPU.

    Raises:
        OSError: the file cannot be read.
    """
    dtype = getattr(torch, TORCH_DTYPES[info.dtype])
    size, path = dtype.itemsize, root / info.file
    whole = len(at) == info.elements
    runs = [(0, len(at))] if whole else [(int(first), RUN) for first in at[::RUN]]
    found, done = bytearray(len(at) * size), 0
    # A shared file system may ask for a buffer of megabytes, which each run would fill.
    with path.open("rb", buffering=0) as file:
        for first, count in runs:
            part = memoryview(found)[done : done + count * size]
            read_exactly(file.fileno(), info.start + first * size, part, path)
            done += len(part)
    return torch.frombuffer(found, dtype=dtype).double()
