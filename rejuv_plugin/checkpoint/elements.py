# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Elements of a tensor in a weight file, as torch has them."""

from pathlib import Path
from typing import TYPE_CHECKING

from .headers import BITS, TORCH_DTYPES, TensorInfo
from .pieces import read_exactly

if TYPE_CHECKING:
    import torch


def read_elements(path: Path, info: TensorInfo, first: int, last: int) -> "torch.Tensor":
    """The flat elements ``[first, last)``, in their dtype, new.

    Args:
        path: of the file.
        info: where the tensor is in it.
        first, last: elements.

    Raises:
        OSError: the file cannot be read, or ends before.
    """
    # torch takes seconds to import, and much of this room does without.
    import torch

    width = BITS[info.dtype] // 8
    data = bytearray((last - first) * width)
    with path.open("rb", buffering=0) as file:
        read_exactly(file.fileno(), info.start + first * width, data, path)
    return torch.frombuffer(data, dtype=getattr(torch, TORCH_DTYPES[info.dtype]))
