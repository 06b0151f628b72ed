# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Ranks of one gloo group as forked processes: what the parent has imported they need not import again."""

import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist


class RanksFailed(AssertionError):
    """At least one rank raised, died, or did not end in time; ``errors`` has what is known, by rank."""

    def __init__(self, errors: dict[int, str]) -> None:
        super().__init__("\n".join(f"rank {rank}: {error}" for rank, error in sorted(errors.items())))
        self.errors = errors

    def __reduce__(self) -> tuple[type["RanksFailed"], tuple[dict[int, str]]]:
        return type(self), (self.errors,)


def run(function: Callable[..., Any], world: int, *args: Any, timeout: float = 120) -> list[Any]:
    """Call ``function(*args)`` in ``world`` processes with ``torch.distributed`` ready.

    Args:
        function: it learns its rank from ``torch.distributed.get_rank()``.
        world: number of ranks.
        args: the same for every rank.
        timeout: seconds until ranks that still run are ended; as long as one waits for another that has failed.

    Returns:
        What the function returned, by rank; it must pickle.

    Raises:
        RanksFailed: with the traceback of every rank that failed.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as directory:
        ends = [context.Pipe(duplex=False) for _ in range(world)]
        processes = [
            context.Process(target=_rank, args=(rank, world, directory, ends[rank][1], function, args), daemon=True)
            for rank in range(world)
        ]
        for process in processes:
            process.start()
        for _, writer in ends:
            writer.close()  # so that a rank that dies without a word is an end of file here
        try:
            results, errors = _collect([reader for reader, _ in ends], time.monotonic() + timeout)
        finally:
            for process in processes:
                process.join(0.2)
                process.kill()
                process.join()
    if errors:
        raise RanksFailed(errors)
    return [results[rank] for rank in range(world)]


def _collect(readers: list[Connection], end: float) -> tuple[dict[int, Any], dict[int, str]]:
    results: dict[int, Any] = {}
    errors: dict[int, str] = {}
    open_ranks = dict(enumerate(readers))
    while open_ranks:
        # After a failure the others usually wait for it in a collective: they get a moment to say so.
        ready = wait(list(open_ranks.values()), max(0.0, min(end - time.monotonic(), 20.0 if errors else 1e9)))
        if not ready:
            errors |= dict.fromkeys(open_ranks, "still running, ended")
            break
        for rank in [rank for rank, reader in open_ranks.items() if reader in ready]:
            try:
                done, value = pickle.loads(open_ranks.pop(rank).recv_bytes())
            except EOFError:
                done, value = False, "died without a word"
            (results if done else errors)[rank] = value
    return results, errors


def _rank(
    rank: int, world: int, directory: str, writer: Connection, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(world))
    torch.set_num_threads(1)
    try:
        # A file, not a port: two runs at a time cannot meet.
        dist.init_process_group("gloo", init_method=f"file://{directory}/store", rank=rank, world_size=world)
        done = pickle.dumps((True, function(*args)))
    except BaseException:
        done = pickle.dumps((False, traceback.format_exc()))
    writer.send_bytes(done)
    # No orderly end of the group: it would wait for ranks that have failed.
    os._exit(0)
