# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The tensors of a plan's output, each made in memory when somebody asks for it."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from ..checkpoint.combine import Combine
from ..checkpoint.headers import BITS, TORCH_DTYPES
from ..checkpoint.pieces import ELEMENTS, read_exactly
from ..checkpoint.plan import Fuse, Plan
from ..errors import InputError
from ..ops.drift import Drift
from .parts import expert_of, is_stack

# Pieces that a thread fuses between two visits to the pool's queue.
_RUN = 16


class Values:
    """The fused and reset tensors of a plan; its methods may be called from several threads.

    Base and SFT checkpoint are read piece by piece into small buffers that are used again and again, so that beside a
    result there is no second tensor in memory, not even of its files' pages. A context: files are closed at its end.
    """

    def __init__(self, plan: Plan, workers: int = 1, *, apart: bool = False) -> None:
        """
        Args:
            plan: of two full checkpoints.
            workers: threads that share the pieces of one tensor. They change nothing but the time.
            apart: note stacks of experts by expert; and `serving` makes an expert when it is taken out of its stack.
        """
        assert plan.adapter is None, "an adapter is no checkpoint that a loader could read"
        self.plan, self.apart = plan, apart
        self.fused: Mapping[str, Fuse] = {operation.name: operation for operation in plan.fused}
        self.drift: dict[str, tuple[Drift, Drift]] = {}
        """By the name of what was asked for, as `parts.parts` has it, how far from the base the SFT checkpoint is, and
        the result."""
        self.failed: Exception | None = None
        """The first error of `tensor`: loaders tell of an error in words of their own, or go on."""
        self._files: dict[Path, int] = {}
        self._stack = ExitStack()
        self._buffers = threading.local()
        self._lock = threading.Lock()
        self._closed = False
        self._workers = workers
        self._pool = self._stack.enter_context(ThreadPoolExecutor(workers)) if workers > 1 else None

    def __enter__(self) -> "Values":
        return self

    def __exit__(self, *raised: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._closed = True
        self._stack.close()

    def empty(self, name: str, device: str = "cpu") -> torch.Tensor:
        """A tensor of the output without its values."""
        info = self.fused[name].sft
        return torch.empty(info.shape, dtype=getattr(torch, TORCH_DTYPES[info.dtype]), device=device)

    def tensor(self, name: str, index: int | None = None) -> torch.Tensor:
        """One tensor of the output, new, on the CPU: the very bits that `checkpoint.write` would write.

        Args:
            name: of a tensor in `fused`; the others are the SFT checkpoint's own.
            index: of one of its experts, if it `is_stack` and they are noted ``apart``: that one alone.

        Raises:
            InputError: named by the tensor; NaN or infinity in what was read, or in the result.
            OSError: a file cannot be read, or ends before.
        """
        try:
            return self._made(name, index)
        except Exception as error:
            self.failed = self.failed or error
            raise

    def _made(self, name: str, index: int | None) -> torch.Tensor:
        if self._closed:
            raise ValueError(f"{name}: expected to be read before its files were closed")
        _check_arithmetic()
        operation = self.fused[name]
        combine = Combine(self.plan, operation)
        if not (self.apart and is_stack(operation)):
            result = self.empty(name)
            self.drift[name] = self._fill(operation, combine, result, 0)
            return result
        whole = self.empty(name, "cpu" if index is None else "meta")
        result = whole if index is None else torch.empty_like(whole[index], device="cpu")
        for i, part in enumerate(whole) if index is None else [(index, result)]:
            self.drift[expert_of(name, i)] = self._fill(operation, combine, part, i * part.numel())
        return result

    def _fill(self, operation: Fuse, combine: Combine, result: torch.Tensor, begin: int) -> tuple[Drift, Drift]:
        """Write the elements of the tensor from ``begin`` on into ``result``, contiguous."""
        count = result.numel()
        if not count:
            return Drift(), Drift()
        output = memoryview(result.view(-1).view(torch.uint8).numpy())
        # No longer than it takes to give each thread some.
        step = ELEMENTS * min(_RUN, -(-count // (ELEMENTS * self._workers)))

        def run(start: int) -> list[tuple[Drift, Drift]]:
            end = min(start + step, count)
            return [
                self._piece(operation, combine, begin, i, min(ELEMENTS, end - i), output)
                for i in range(start, end, ELEMENTS)
            ]

        moved, fused = Drift(), Drift()
        starts = range(0, count, step)
        # In the order of the elements, so that sums do not depend on the number of workers.
        for done in self._pool.map(run, starts) if self._pool else map(run, starts):
            for of_sft, of_output in done:
                moved, fused = moved + of_sft, fused + of_output
        if not _finite(moved, fused):
            raise InputError(
                operation.name,
                f"finite weights in {self.plan.base.key} and {self.plan.sft.key}",
                "NaN or infinity",
                "check both checkpoints: do they generate text?",
            )
        return moved, fused

    def _piece(
        self, operation: Fuse, combine: Combine, begin: int, at: int, count: int, output: memoryview
    ) -> tuple[Drift, Drift]:
        """The elements from ``begin + at`` on, into ``output`` from its element ``at`` on."""
        info, of_base, first = operation.sft, operation.base, begin + at
        common = combine.common(first, count)
        width, base_width = BITS[info.dtype] // 8, BITS[of_base.dtype] // 8
        base, sft = self._own_buffers()
        base, sft = base[: common * base_width], sft[: count * width]
        self._read(self.plan.sft.root / info.file, info.start + first * width, sft)
        self._read(self.plan.base.root / of_base.file, of_base.start + first * base_width, base)
        return combine(first, count, base, sft, output[at * width : (at + count) * width])

    def _own_buffers(self) -> tuple[memoryview, memoryview]:
        if not hasattr(self._buffers, "both"):
            # Room for any dtype. Memory that is never touched, half of it or more, is never taken.
            self._buffers.both = memoryview(bytearray(8 * ELEMENTS)), memoryview(bytearray(8 * ELEMENTS))
        return self._buffers.both

    def _read(self, path: Path, start: int, buffer: memoryview) -> None:
        with self._lock:
            if path not in self._files:
                self._files[path] = self._stack.enter_context(path.open("rb", buffering=0)).fileno()
        read_exactly(self._files[path], start, buffer, path)


def _check_arithmetic() -> None:
    """Somebody else's library may have switched the smallest numbers off in this process: other bits, unsaid."""
    if np.float32(2.0**-149) * np.float32(1) == 0:
        raise RuntimeError(
            "rejuvenation: expected arithmetic as IEEE 754 has it, got a process that flushes subnormal numbers to "
            "zero. Fix: torch.set_flush_denormal(False), or find the library that was built with -ffast-math"
        )


def _finite(*drifts: Drift) -> bool:
    total = sum(drift.moved + drift.base for drift in drifts)
    return total - total == 0.0
