# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Weight files, written piece by piece: each input byte is read once, and memory does not grow with the model.

A worker reads a piece of the SFT checkpoint and the same elements of the base into buffers of its own, which are used
again and again: the first touch of fresh memory costs more than all the arithmetic. It hashes what it read, fuses,
hashes and writes. Results are added up in the order of the file, so that nothing depends on the number of workers.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import BinaryIO, NamedTuple

from ..ops.drift import Drift
from .combine import Combine
from .compatible import layer_group
from .headers import BITS
from .pieces import ELEMENTS, Digests, Pieces, count_of, hash_piece, piece_bytes, read_exactly
from .plan import Copy, Fuse, Plan

# What a worker does between two visits to the queue: long against the cost of a visit, short against a file.
_RUN_BYTES = 16 << 20
_NO_DRIFT = Drift()


@dataclass
class Shard:
    """What is known of one weight file when it is written."""

    file: str
    output: str = ""
    """Digest of the file; see `pieces`."""
    sft: str = ""
    """Digest of the SFT checkpoint's file."""
    base: dict[str, bytes] = field(default_factory=dict)
    """By the name of a fused tensor, the digests of all pieces of its base tensor, 16 bytes each, if all were read."""
    drift_sft: dict[str, Drift] = field(default_factory=dict)
    """Drift of the SFT checkpoint from the base, by layer group."""
    drift_output: dict[str, Drift] = field(default_factory=dict)
    """Drift of the output from the base, by layer group."""


class _Piece(NamedTuple):
    """A piece of the output: its number in the file, the tensor's operation, and which elements or bytes of it."""

    number: int
    operation: Fuse | Copy
    first: int
    """Byte in the tensor."""
    length: int
    """Bytes."""


class _Done(NamedTuple):
    piece: _Piece
    sft: bytes
    base: bytes
    """Empty if none was read, or not the very elements of a piece."""
    output: bytes
    moved: Drift
    fused: Drift


def write_weights(plan: Plan, file: str, target: BinaryIO, advance: Callable[[int], None], workers: int = 1) -> Shard:
    """Write one weight file of the output.

    The header is the SFT file's own, byte for byte: names, order, shapes, dtypes and metadata do not change.

    Args:
        plan: the plan.
        file: name of the file in the SFT checkpoint.
        target: open for writing, empty.
        advance: called, in this thread, with the number of bytes written since the last call.
        workers: threads. They change nothing but the time.

    Raises:
        OSError: an input cannot be read or has changed, or the output cannot be written.
    """
    header = plan.layout.headers[file]
    pieces, shard = Pieces(header), Shard(file)
    sft, output = Digests(pieces), Digests(pieces)
    with ExitStack() as stack:
        writer = _Writer(plan, file, target, stack)
        writer.put(0, header.prefix)
        sft.put(0, hash_piece(header.prefix))
        output.put(0, hash_piece(header.prefix))
        advance(len(header.prefix))
        # Closed, and so its threads ended, before the files that they use are.
        for run in stack.enter_context(closing(_in_order(writer, _runs(plan, file, pieces), workers))):
            for done in run:
                sft.put(done.piece.number, done.sft)
                output.put(done.piece.number, done.output)
                operation = done.piece.operation
                if isinstance(operation, Fuse):
                    _add(shard, operation, done)
                advance(done.piece.length)
    shard.sft, shard.output = sft.file, output.file
    return shard


def _add(shard: Shard, operation: Fuse, done: _Done) -> None:
    group = layer_group(operation.name)
    shard.drift_sft[group] = shard.drift_sft.get(group, _NO_DRIFT) + done.moved
    shard.drift_output[group] = shard.drift_output.get(group, _NO_DRIFT) + done.fused
    if done.base:
        shard.base[operation.name] = shard.base.get(operation.name, b"") + done.base


def _runs(plan: Plan, file: str, pieces: Pieces) -> Iterator[list[_Piece]]:
    """The pieces of a file but its header, in order, a worker's portion at a time."""
    run: list[_Piece] = []
    size = 0
    for operation in plan.of_file(file):
        info = operation.sft
        step, number = piece_bytes(info), pieces.first[operation.name]
        for i in range(count_of(info)):
            length = min(step, info.end - info.start - i * step)
            run.append(_Piece(number + i, operation, i * step, length))
            size += length
            if size >= _RUN_BYTES:
                yield run
                run, size = [], 0
    if run:
        yield run


def _in_order(writer: "_Writer", runs: Iterable[list[_Piece]], workers: int) -> Generator[list[_Done], None, None]:
    if workers == 1:
        yield from map(writer.run, runs)
        return
    waiting: deque[Future[list[_Done]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="rejuvenation") as pool:
        try:
            for run in runs:
                waiting.append(pool.submit(writer.run, run))
                # Enough for all workers; no more, since a result waits in memory.
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # After an error, or when the caller gives up: what has not begun is not worth waiting for.
            pool.shutdown(wait=False, cancel_futures=True)


def _check_prefix(descriptor: int, prefix: bytes, path: Path) -> None:
    """That the tensors of a file still lie where the plan has them."""
    if read_exactly(descriptor, 0, bytearray(len(prefix)), path) != prefix:
        raise OSError(f"{path} changed while it was read")


class _Writer:
    """Reads, fuses and writes pieces; its methods may be called from several threads."""

    def __init__(self, plan: Plan, file: str, target: BinaryIO, stack: ExitStack) -> None:
        prefix = plan.layout.headers[file].prefix
        self._target = target.fileno()
        self._sft_path = plan.layout.root / file
        self._sft = stack.enter_context(self._sft_path.open("rb", buffering=0)).fileno()
        fused = [operation for operation in plan.of_file(file) if isinstance(operation, Fuse)]
        self._base_paths = {operation.base.file: plan.base.root / operation.base.file for operation in fused}
        self._base = {
            name: stack.enter_context(path.open("rb", buffering=0)).fileno() for name, path in self._base_paths.items()
        }
        _check_prefix(self._sft, prefix, self._sft_path)
        for name, descriptor in self._base.items():
            _check_prefix(descriptor, plan.base.headers[name].prefix, self._base_paths[name])
        self._combine = {operation.name: Combine(plan, operation) for operation in fused}
        self._buffers: SimpleQueue[tuple[bytearray, bytearray, bytearray]] = SimpleQueue()

    def put(self, start: int, data: bytes | memoryview) -> None:
        """Write ``data`` at byte ``start`` of the file."""
        view, done = memoryview(data), 0
        while done < len(view):
            done += os.pwrite(self._target, view[done:], start + done)

    def run(self, pieces: list[_Piece]) -> list[_Done]:
        """Do all of ``pieces``, in buffers that no other thread uses meanwhile."""
        try:
            buffers = self._buffers.get_nowait()
        except Empty:
            # Room for any dtype. Memory that is never touched, half of it or more, is never taken.
            buffers = bytearray(8 * ELEMENTS), bytearray(8 * ELEMENTS), bytearray(8 * ELEMENTS)
        try:
            base, sft, output = buffers
            return [self._one(piece, memoryview(base), memoryview(sft), memoryview(output)) for piece in pieces]
        finally:
            self._buffers.put(buffers)

    def _one(self, piece: _Piece, base: memoryview, sft: memoryview, output: memoryview) -> _Done:
        operation, length = piece.operation, piece.length
        info = operation.sft
        sft = read_exactly(self._sft, info.start + piece.first, sft[:length], self._sft_path)
        digest = hash_piece(sft)
        if isinstance(operation, Copy):
            self.put(info.start + piece.first, sft)
            return _Done(piece, digest, b"", digest, _NO_DRIFT, _NO_DRIFT)
        width, base_width = BITS[info.dtype] // 8, BITS[operation.base.dtype] // 8
        first, count = piece.first // width, length // width
        path = self._base_paths[operation.base.file]
        start = operation.base.start + first * base_width
        combine, output = self._combine[operation.name], output[:length]
        common = combine.common(first, count)
        base = read_exactly(self._base[operation.base.file], start, base[: common * base_width], path)
        moved, fused = combine(first, count, base, sft, output)
        self.put(info.start + piece.first, output)
        whole = operation.base.elements == info.elements
        return _Done(piece, digest, hash_piece(base) if whole else b"", hash_piece(output), moved, fused)
