# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Functions on several forked processes of one `torch.distributed` world (gloo): ``run(function, 4, "argument")``.

What the test has imported and built is there in each of them, so a world starts in a tenth of a second.
"""

import gc
import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import wait
from typing import Any

import torch
import torch.distributed as dist


def run(function: Callable[..., Any], world: int, *args: Any, seconds: float = 60.0) -> list[Any]:
    """Call ``function(*args)`` on every rank and give what each returned; raise here what the first of them raised."""
    found = outcomes(function, world, *args, seconds=seconds)
    for outcome in found:
        if isinstance(outcome, BaseException):
            raise outcome
    return found


class Left(RuntimeError):
    """What a rank that has left had raised: its traceback."""


def outcomes(
    function: Callable[..., Any], world: int, *args: Any, seconds: float = 60.0, leave: bool = False
) -> list[Any]:
    """As `run`, but for a rank that raised an exception the exception.

    Results and exceptions are pickled.

    Args:
        leave: a rank that raised ends, which breaks what the others do with it, and gives `Left`. Otherwise it stays,
            and they wait.

    Raises:
        TimeoutError: a rank had no result after so many ``seconds``.
        RuntimeError: a process ended without a result.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.NamedTemporaryFile(prefix="ranks-") as store:
        pipes = [context.Pipe(duplex=False) for _ in range(world)]
        processes = [
            context.Process(target=_rank, args=(rank, world, store.name, seconds, leave, function, args, theirs))
            for rank, (_, theirs) in enumerate(pipes)
        ]
        try:
            for process in processes:
                process.start()
            for _, theirs in pipes:
                theirs.close()
            found = _received({ours: rank for rank, (ours, _) in enumerate(pipes)}, time.monotonic() + seconds)
        finally:
            for process in processes:
                process.kill()
                process.join()
    return [found[rank] for rank in range(world)]


def _received(pipes: dict[Any, int], end: float) -> dict[int, Any]:
    found: dict[int, Any] = {}
    while pipes:
        ready = wait(list(pipes), max(0.0, end - time.monotonic()))
        if not ready:
            # What another rank raised is why they wait.
            raised = next((outcome for outcome in found.values() if isinstance(outcome, BaseException)), None)
            raise TimeoutError(f"no result from ranks {sorted(pipes.values())}") from raised
        for pipe in ready:
            rank = pipes.pop(pipe)
            try:
                found[rank] = pickle.loads(pipe.recv_bytes())
            except EOFError:
                raise RuntimeError(f"rank {rank} ended without a result") from None
    return found


def _rank(
    rank: int, world: int, store: str, seconds: float, leave: bool, function: Callable[..., Any], args: Any, theirs: Any
) -> None:
    # As torchrun has them, for whoever asks.
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    torch.set_num_threads(1)
    # A collection would otherwise touch, and so copy, everything that the parent made.
    gc.freeze()
    timeout = timedelta(seconds=2 * seconds)
    dist.init_process_group("gloo", store=dist.FileStore(store, world), rank=rank, world_size=world, timeout=timeout)
    try:
        outcome = function(*args)
    # pytest's own failures are no Exceptions.
    except BaseException as error:
        error.add_note(f"on rank {rank} of {world}")
        if leave:
            _send(Left(traceback.format_exc()), theirs)
            os._exit(1)
        outcome = error
    _send(outcome, theirs)
    # Until all have their results, and the caller ends us: a rank that leaves breaks what others still do.
    time.sleep(2 * seconds)


def _send(outcome: Any, theirs: Any) -> None:
    # By value. multiprocessing's own way hands over an open file for each tensor.
    theirs.send_bytes(pickle.dumps(outcome))
