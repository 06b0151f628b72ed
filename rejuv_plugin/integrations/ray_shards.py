# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Weight files written by all nodes of a Ray cluster that share a file system: the bytes of one process.

A task for each file. Ray starts it again, elsewhere, when its node is lost; a node that was only thought lost writes
the very same bytes at the very same places. A file that a node could not write because it does not see the directories,
or sees other inputs there, is written here.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from ..checkpoint import Plan, Shard, ShardWriter, local
from ..errors import InputError, one_line

_log = logging.getLogger(__name__)
# Of a file whose node is lost. An error of ours, such as a full disk, is not tried again.
_RETRIES = 10
_THREADS = 2
_SECONDS_TO_CANCEL = 30.0


def connect(key: str) -> None:
    """Join the cluster that this machine is a node of.

    Raises:
        InputError: named ``key``; there is none.
    """
    if ray.is_initialized():
        return
    try:
        ray.init(address="auto", logging_level=logging.WARNING)
    except ConnectionError as error:
        reason = one_line(error)
        raise InputError(
            key, "a Ray cluster that runs on this machine", reason, "start one: ray start --head"
        ) from None
    print(f"Ray cluster at {ray.get_runtime_context().gcs_address}, nodes: {len(nodes())}", file=sys.stderr)


def nodes() -> dict[str, str]:
    """Addresses of the cluster's nodes that have a processor, by their ids; empty if this process is in no cluster."""
    if not ray.is_initialized():
        return {}
    with_processor = (node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1)
    return {node["NodeID"]: node["NodeManagerAddress"] for node in with_processor}


def over_cluster() -> ShardWriter:
    """A `ShardWriter` for `checkpoint.apply` and `checkpoint.materialise`."""

    def write_all(plan: Plan, files: Sequence[str], directory: Path, advance: Callable[[int], None]) -> Iterator[Shard]:
        task = ray.remote(_write).options(num_cpus=1, max_retries=_RETRIES, scheduling_strategy="SPREAD")
        shared = ray.put((plan, _stamps(plan)))
        waiting: dict[Any, str] = {task.remote(shared, file, str(directory)): file for file in files}
        try:
            while waiting:
                (done,), _ = ray.wait(list(waiting))
                file = waiting.pop(done)
                shard = _result(done)
                if shard is not None and _arrived(plan, file, directory):
                    advance(plan.layout.headers[file].size)
                    yield shard
                else:
                    _log.warning("%s is written here: a node does not see %s, or other inputs", file, directory)
                    yield from local(_THREADS)(plan, [file], directory, advance)
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)
            if waiting:
                # Until they are gone: what one still writes would outlive the directory's removal.
                ray.wait(list(waiting), num_returns=len(waiting), timeout=_SECONDS_TO_CANCEL)

    return write_all


def _write(shared: tuple[Plan, list[Any]], file: str, directory: str) -> Shard | None:
    """The task: one weight file, durably; None where the directory and the same inputs are not to be seen."""
    plan, stamps = shared
    try:
        if not Path(directory).is_dir() or _stamps(plan) != stamps:
            return None
    except OSError:
        return None
    return next(local(_THREADS)(plan, [file], Path(directory), lambda count: None))


def _stamps(plan: Plan) -> list[Any]:
    """Size and modification time of each input: the same on every node of a shared disk."""
    found = (path.stat() for path in plan.input_paths)
    return [(stat.st_size, stat.st_mtime_ns) for stat in found]


def _result(reference: Any) -> Shard | None:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        # As if it had been raised here, for whoever turns a full disk into an error of its key.
        raise (error.cause if isinstance(error.cause, OSError) else error) from None


def _arrived(plan: Plan, file: str, directory: Path) -> bool:
    try:
        # Opened, not only asked for: NFS then asks its server.
        with (directory / file).open("rb") as written:
            return written.seek(0, 2) == plan.layout.headers[file].size
    except OSError:
        return False
