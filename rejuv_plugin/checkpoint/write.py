# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""One rejuvenated checkpoint, all or nothing: written beside its place, flushed to the disk, then renamed."""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import InputError
from .compatible import same_checkpoint
from .digest import Progress
from .layout import MANIFEST
from .plan import Plan
from .provenance import Inputs, manifest, read_inputs
from .stream import Drifts, write_weights
from .target import check_output, no_space, not_empty


def apply(
    plan: Plan,
    output: Path,
    *,
    inputs: Inputs | None = None,
    key: str = "--output",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the rejuvenated checkpoint ``plan`` describes to the directory ``output``.

    A reader sees nothing at ``output``, or all of it. A run that raises leaves nothing behind; one that is killed
    leaves ``<output>.tmp-<host>-<pid>``, which the next run on that host removes.

    Args:
        plan: from `plan_fusion`.
        output: a new or empty directory; its parents are created.
        inputs: from `provenance.read_inputs`, for inputs that are hashed already.
        key: how errors name ``output``: a command-line option or a configuration key.
        progress: called with ``("hash" or "write", bytes done, bytes in all)``.

    Returns:
        The manifest, as written to ``rejuvenation.json``; its fields: `provenance.manifest`.

    Raises:
        InputError: base and SFT are the same weights, or ``output`` cannot be written; see `target.check_output`.
    """
    check_output(plan, output, key)
    return write(plan, inputs or read_inputs(plan, progress=progress), output, key=key, progress=progress)


def write(plan: Plan, inputs: Inputs, output: Path, *, key: str, progress: Progress | None) -> dict[str, Any]:
    """As `apply`, for inputs that are hashed already."""
    check_output(plan, output, key)
    output = output.resolve()
    _remove_abandoned(output)
    with _all_or_nothing(output, key) as directory:
        return _fill(directory, plan, inputs, progress)


def _fill(directory: Path, plan: Plan, inputs: Inputs, progress: Progress | None) -> dict[str, Any]:
    began, done, drifts, digests = time.monotonic(), 0, Drifts(), {}
    total = plan.output_bytes

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress("write", done, total)

    for file in plan.sft.headers:
        with _durable(directory / file) as target:
            digests[file] = write_weights(plan, file, target, drifts, advance)
    # Sharded another way, equal checkpoints have unequal files; only now is it known.
    if not any(d.moved for d in drifts.sft.values()):
        raise same_checkpoint(plan.base, plan.sft, f"{plan.base.root}, which has the weights of {plan.sft.key}")
    for name in plan.sft.side_files:
        data = (plan.sft.root / name).read_bytes()
        (directory / name).parent.mkdir(exist_ok=True)
        with _durable(directory / name) as target:
            target.write(data)
        digests[name] = hashlib.sha256(data).hexdigest()
        advance(len(data))
    record = manifest(plan, inputs, digests, drifts.sft, drifts.output, time.monotonic() - began)
    with _durable(directory / MANIFEST) as target:
        target.write(json.dumps(record, indent=2, allow_nan=False).encode() + b"\n")
    return record


@contextmanager
def _all_or_nothing(output: Path, key: str) -> Iterator[Path]:
    """A temporary sibling of ``output`` that becomes it, or disappears if the block raises."""
    directory = output.with_name(f"{output.name}.tmp-{socket.gethostname()}-{os.getpid()}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir()
        yield directory
        for folder in (*(path for path in directory.iterdir() if path.is_dir()), directory):
            _sync_directory(folder)
        # An empty directory at the target is replaced, one that got something in it meanwhile is not.
        directory.rename(output)
        _sync_directory(output.parent)
    except BaseException as error:
        shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(key, f"room for the output below {output.parent}", "a full disk") from error
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise not_empty(output, key) from error
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise InputError(
                key,
                "a directory that can be written",
                f"{error.strerror} below {output.parent}",
                f"set {key} elsewhere",
            ) from error
        raise


@contextmanager
def _durable(path: Path) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_abandoned(output: Path) -> None:
    """Remove what killed runs of this host left for this output; a running process keeps its own."""
    pattern = re.compile(re.escape(f"{output.name}.tmp-{socket.gethostname()}-") + r"(\d+)")
    for path in output.parent.iterdir() if output.parent.is_dir() else ():
        found = pattern.fullmatch(path.name)
        if found and not _is_running(int(found[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
