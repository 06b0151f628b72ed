# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Weight files, written chunk by chunk in the order of their bytes: memory does not grow with the model."""

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import BinaryIO

import torch

from ..ops.drift import Drift, drift
from ..ops.fusion import fuse
from ..ops.reset import fuse_and_reset
from .headers import BITS, TensorInfo
from .plan import Fuse, Plan

_TORCH_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# 192 KiB in float64, so that the temporaries of the arithmetic stay in the processor's cache: on one core this is four
# times as fast as 32 MiB. Below 32768, torch's grain, it sums on one thread, so the drift has the same bits anywhere.
_CHUNK_ELEMENTS = 24 << 10
_COPY_BYTES = 8 << 20


class Drifts:
    """Drift of the SFT checkpoint and of the output from the base, summed by layer group as tensors stream by."""

    def __init__(self) -> None:
        self.sft: dict[str, Drift] = defaultdict(Drift)
        self.output: dict[str, Drift] = defaultdict(Drift)


def write_weights(plan: Plan, file: str, target: BinaryIO, drifts: Drifts, advance: Callable[[int], None]) -> str:
    """Write one weight file of the output.

    The header is the SFT file's own, byte for byte: names, order, shapes, dtypes and metadata do not change.

    Args:
        plan: the plan.
        file: name of the file in the SFT checkpoint.
        target: open for writing, empty.
        drifts: the sums to add to, in place.
        advance: called with the number of bytes written since the last call.

    Returns:
        Hexadecimal SHA-256 of the file.
    """
    digest = hashlib.sha256()

    def put(data: bytes | memoryview) -> None:
        target.write(data)
        digest.update(data)
        advance(len(data))

    put(plan.sft.headers[file].prefix)
    with ExitStack() as stack:
        sft_file = stack.enter_context((plan.sft.root / file).open("rb"))
        base_files = {
            name: stack.enter_context((plan.base.root / name).open("rb"))
            for name in sorted({op.base.file for op in plan.of_file(file) if isinstance(op, Fuse)})
        }
        for operation in plan.of_file(file):
            if isinstance(operation, Fuse):
                for chunk in _fused(plan, operation, sft_file, base_files[operation.base.file], drifts):
                    put(chunk)
            else:
                for start in range(operation.sft.start, operation.sft.end, _COPY_BYTES):
                    put(_read(sft_file, start, min(_COPY_BYTES, operation.sft.end - start)))
    return digest.hexdigest()


def layer_group(name: str) -> str:
    """The part of the model that a tensor's drift is reported under: its decoder layer, or else its module.

    ``model.layers.3.mlp.up_proj.weight`` -> ``model.layers.3``; ``lm_head.weight`` -> ``lm_head``.
    """
    layer = re.match(r"(?:[^.]+\.)*?\d+(?=\.)", name)
    return layer.group() if layer else name.rpartition(".")[0] or name


def _fused(
    plan: Plan, operation: Fuse, sft_file: BinaryIO, base_file: BinaryIO, drifts: Drifts
) -> Iterator[memoryview]:
    group = layer_group(operation.name)
    chosen = _Chosen(operation) if plan.reset and operation.reset else None
    for first in range(0, operation.sft.elements, _CHUNK_ELEMENTS):
        count = min(_CHUNK_ELEMENTS, operation.sft.elements - first)
        sft = _load(sft_file, operation.sft, first, count)
        base = _load(base_file, operation.base, first, count)
        if chosen and plan.reset:
            output = fuse_and_reset(
                base, sft, plan.fusion.alpha, plan.reset.omega, chosen.elements(first, count), sft.dtype
            )
        else:
            output = fuse(base, sft, plan.fusion.alpha, sft.dtype)
        drifts.sft[group] += drift(sft, base)
        drifts.output[group] += drift(output, base)
        yield output.view(torch.uint8).numpy().data


class _Chosen:
    """Which elements of a tensor belong to the rows or columns that are reset."""

    def __init__(self, operation: Fuse) -> None:
        slices, shape = operation.reset, operation.sft.shape
        assert slices is not None
        self._rows = slices.dim == 0
        self._row_elements = math.prod(shape[1:])
        self._member = torch.zeros(shape[slices.dim], dtype=torch.bool)
        self._member[list(slices.indices)] = True

    def elements(self, first: int, count: int) -> torch.Tensor:
        """``[count]`` bool for the flat elements ``[first, first + count)``."""
        flat = torch.arange(first, first + count)
        return self._member[flat // self._row_elements if self._rows else flat % self._row_elements]


def _load(file: BinaryIO, info: TensorInfo, first: int, count: int) -> torch.Tensor:
    """Elements ``[first, first + count)`` of a tensor, flat: fusion is elementwise and does not look at rows."""
    width = BITS[info.dtype] // 8
    return torch.frombuffer(_read(file, info.start + first * width, count * width), dtype=_TORCH_DTYPES[info.dtype])


def _read(file: BinaryIO, start: int, length: int) -> memoryview:
    data = memoryview(bytearray(length))
    file.seek(start)
    if file.readinto(data) != length:  # type: ignore[attr-defined]
        raise OSError(f"{file.name} changed while it was read")
    return data
