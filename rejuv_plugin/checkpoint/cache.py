# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A cache of rejuvenated checkpoints by content: however many processes ask, one works and the others reuse."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .locks import locked
from .plan import Plan
from .progress import Progress
from .provenance import Inputs, content_key, read_inputs
from .target import check_outside, check_room, check_writable
from .valid import read_valid
from .write import ShardWriter, write


@dataclass(frozen=True)
class Materialised:
    """A rejuvenated checkpoint on the disk."""

    path: Path
    """Its directory, absolute: ``<SFT label>-<16 digits of the content key>`` below the cache."""
    manifest: dict[str, Any]
    """The content of its ``rejuvenation.json``; fields: `provenance.manifest`."""
    cached: bool
    """Whether it was there already, or another process made it while this one waited."""
    seconds: float
    """Wall time of this call: hashing, waiting and writing."""


def materialise(
    plan: Plan,
    cache_dir: str | Path,
    *,
    key: str = "rejuvenation.cache_dir",
    progress: Progress | None = None,
    approve: Callable[[str], None] | None = None,
    shards: ShardWriter | None = None,
) -> Materialised:
    """The checkpoint that ``plan`` describes, made now or found in the cache.

    Equal settings and equal input bytes give one directory, whatever the paths; nothing depends on time or host. The
    locks are those of the file system: a holder that is killed frees them, and processes on other nodes are kept out
    as far as the file system locks across nodes (local disks and NFS 4 do).

    Args:
        plan: from `plan_fusion`.
        cache_dir: directory of the cache; created.
        key: how errors name ``cache_dir``.
        progress: called with ``("hash" or "write", bytes done, bytes in all)``; not while waiting for another process.
        shards: how the weight files are written; default `write.local` with all cores.
        approve: called with the content key before anything is made under it; what it raises ends the call.

    Raises:
        InputError: the cache is not writable, full, inside an input, or on a file system without locks; base and SFT
            are the same weights; or the cached directory is not what its manifest says. Locks and digests, in hidden
            files, may be left in the cache by then; a checkpoint never is.
    """
    began = time.monotonic()
    check_cache(plan, cache_dir, key)
    cache = make_directory(cache_dir, key)
    inputs = read_inputs_once(plan, cache, key, progress)
    address = content_key(plan, inputs)
    if approve is not None:
        approve(address)
    path = cache / f"{plan.sft.label}-{address[:16]}"
    with locked(cache / f".{path.name}.lock", key, path):
        cached = path.exists()
        if cached:
            manifest = read_valid(path, address, key)
        else:
            manifest = write(plan, inputs, path, key=key, progress=progress, alone=True, resume=True, shards=shards)
    return Materialised(path, manifest, cached, time.monotonic() - began)


def read_inputs_once(plan: Plan, cache: Path, key: str, progress: Progress | None) -> Inputs:
    """Hash the inputs of ``plan``; one process does, the others then find the digests in the cache's memo."""
    memo = cache / ".digests.json"
    with locked(cache / ".digests.lock", key, memo):
        return read_inputs(plan, memo, progress)


def check_cache(plan: Plan, cache_dir: str | Path, key: str) -> None:
    """Check all of a cache that can be known before anything is hashed or written: neither is done here.

    Args:
        plan: from `plan_fusion`.
        cache_dir: directory of the cache, which need not exist yet.
        key: how errors name ``cache_dir``.

    Raises:
        InputError: as `check_place`, or there is no room for the output.
    """
    cache, ancestor = _absolute(cache_dir), check_place(plan, cache_dir, key)
    # Only the content key tells whether an output of this checkpoint, or what a killed run left of one, is the one
    # that is asked for; then its room is not needed again. `write` checks once more when it is.
    made = ancestor == cache and any(entry.name.startswith(f"{plan.sft.label}-") for entry in cache.iterdir())
    if not made:
        check_room(plan, ancestor, key)


def check_place(plan: Plan, cache_dir: str | Path, key: str) -> Path:
    """Check where a cache is, whatever goes into it; returns its nearest existing ancestor, or itself.

    Raises:
        InputError: named ``key``; it lies in an input, or cannot be written.
    """
    cache = _absolute(cache_dir)
    check_outside(plan, cache, key)
    return check_writable(cache, key)


def make_directory(cache_dir: str | Path, key: str) -> Path:
    """Create the directory of the cache; returns it absolute and free of symbolic links.

    Raises:
        InputError: named ``key``; it cannot be made.
    """
    cache = _absolute(cache_dir)
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            key, "a directory that can be made", f"{cache} ({error.strerror})", f"set {key} elsewhere"
        ) from None
    return cache


def _absolute(cache_dir: str | Path) -> Path:
    return Path(cache_dir).expanduser().resolve()
