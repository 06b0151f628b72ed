# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What all ranks of a job settle among themselves, by collectives over all of them."""

import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

from ....errors import InputError


@contextmanager
def all_or_none(what: str) -> Iterator[None]:
    """If the block fails on some ranks, raise on every rank, with the rank and the cause of the first.

    A collective at the end of the block, so no rank waits for one that has given up. The block itself must not
    communicate.

    Raises:
        InputError: some rank's was one; named by its key.
        RuntimeError: some rank failed in another way.
    """
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
    told = None
    if isinstance(failed, InputError):
        told = ("input", failed.key, failed.expected, failed.got, failed.fix)
    elif failed is not None:
        told = ("other", type(failed).__name__, " ".join(str(failed).split())[:500])
    for rank, (host, problem) in enumerate(gather((socket.gethostname(), told))):
        if problem is None:
            continue
        where = f"rank {rank} on {host}"
        if problem[0] == "input":
            _, key, expected, got, fix = problem
            raise InputError(key, expected, f"{got} ({where})", fix) from failed
        raise RuntimeError(f"rejuvenation: {what} failed on {where}: {problem[1]}: {problem[2]}") from failed


def gather(mine: Any) -> list[Any]:
    """Everybody's object, by rank. Small ones only."""
    everybody: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everybody, mine)
    return everybody


def owned(names: Sequence[str], mine: Collection[str]) -> list[str]:
    """Those of ``mine`` that no lower rank has: together the ranks then have each name once.

    Args:
        names: all names, in an order that is the same on all ranks.
        mine: this rank's.
    """
    has = bytes(name in mine for name in names)
    lower = gather(has)[: dist.get_rank()]
    return [name for i, name in enumerate(names) if has[i] and not any(other[i] for other in lower)]
