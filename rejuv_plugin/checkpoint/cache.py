# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A cache of rejuvenated checkpoints by content: however many processes ask, one works and the others reuse."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A dependency of huggingface_hub, which is one of ours, and the lock that its own cache of downloads relies on.
from filelock import FileLock

from ..errors import InputError
from .digest import Progress
from .layout import MANIFEST
from .plan import Plan
from .provenance import FORMAT, Inputs, content_key, read_inputs
from .target import check_outside, check_writable
from .write import write


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
        approve: called with the content key before anything is made under it; what it raises ends the call.

    Raises:
        InputError: the cache is not writable, full, or inside an input; base and SFT are the same weights; or the
            cached directory is not what its manifest says. Locks and digests, in hidden files, may be left in the
            cache by then; a checkpoint never is.
    """
    began = time.monotonic()
    cache = Path(cache_dir).expanduser().resolve()
    make_directory(plan, cache, key)
    inputs = read_inputs_once(plan, cache, key, progress)
    address = content_key(plan, inputs)
    if approve is not None:
        approve(address)
    path = cache / f"{plan.sft.label}-{address[:16]}"
    with locked(cache / f".{path.name}.lock", key):
        cached = path.exists()
        manifest = read_valid(path, address, key) if cached else write(plan, inputs, path, key=key, progress=progress)
    return Materialised(path, manifest, cached, time.monotonic() - began)


def read_inputs_once(plan: Plan, cache: Path, key: str, progress: Progress | None) -> Inputs:
    """Hash the inputs of ``plan``; one process does, the others then find the digests in the cache's memo."""
    with locked(cache / ".digests.lock", key):
        return read_inputs(plan, cache / ".digests.json", progress)


def read_valid(path: Path, address: str, key: str) -> dict[str, Any]:
    """The manifest of a cached checkpoint, after a check that is cheap at any size: its key, and each file's size.

    Raises:
        InputError: named ``key``; something is missing or has changed. It is never removed: it may be someone's work.
    """
    problem = None
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT or manifest["key"] != address:
            problem = f"a {MANIFEST} of something else"
        for name, file in manifest["outputs"].items():
            if (path / name).stat().st_size != file["size"]:
                problem = f"{name} of another size"
    except FileNotFoundError as error:
        problem = f"no {Path(error.filename).name}"
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        problem = f"a {MANIFEST} that cannot be read ({type(error).__name__})"
    if problem:
        raise InputError(key, f"{path} to be as its {MANIFEST} says", problem, f"remove {path}; it is made again")
    return manifest


def make_directory(plan: Plan, cache: Path, key: str) -> None:
    """Create the directory of the cache, absolute and free of symbolic links.

    Raises:
        InputError: named ``key``; it cannot be written, or lies in an input.
    """
    check_outside(plan, cache, key)
    check_writable(cache, key)
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            key, "a directory that can be made", f"{cache} ({error.strerror})", f"set {key} elsewhere"
        ) from None


@contextmanager
def locked(path: Path, key: str) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs; ``key`` names its directory in errors."""
    lock = FileLock(path)
    try:
        lock.acquire()
    except OSError as error:
        raise InputError(
            key, "a directory that can be written", f"{path.parent} ({error.strerror})", f"set {key} elsewhere"
        ) from None
    try:
        yield
    finally:
        lock.release()
