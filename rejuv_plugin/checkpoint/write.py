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
    leaves ``<output>.tmp-<host>-<pid>``, which the next run on that host removes. One call at a time per process and
    output.

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
        OSError: an input cannot be read, or changed meanwhile.
    """
    prepare(plan, output, key)
    return write(plan, inputs or read_inputs(plan, progress=progress), output, key=key, progress=progress)


def prepare(plan: Plan, output: Path, key: str) -> None:
    """What `apply` does first: check ``output``, after what killed runs left has made room; for callers with long work
    to do before they apply."""
    _remove_abandoned(output.resolve(), alone=False)
    check_output(plan, output, key)


def write(
    plan: Plan, inputs: Inputs, output: Path, *, key: str, progress: Progress | None, alone: bool = False
) -> dict[str, Any]:
    """As `apply`, for inputs that are hashed already.

    Args:
        alone: whether the caller holds a lock that keeps all other writers of ``output``, on any host, out.
    """
    output = output.resolve()
    # Before the check: what they left takes the room that it asks for.
    _remove_abandoned(output, alone)
    check_output(plan, output, key)
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
        digests[name] = hashlib.sha256(data).hexdigest()
        # Else the content key, which other runs find this output by, would be that of other content.
        if digests[name] != inputs.sft[name]:
            raise OSError(f"{plan.sft.root / name} changed while it was read")
        (directory / name).parent.mkdir(exist_ok=True)
        with _durable(directory / name) as target:
            target.write(data)
        advance(len(data))
    record = manifest(plan, inputs, digests, drifts.sft, drifts.output, time.monotonic() - began)
    with _durable(directory / MANIFEST) as target:
        target.write(json.dumps(record, indent=2, allow_nan=False).encode() + b"\n")
    return record


@contextmanager
def _all_or_nothing(output: Path, key: str) -> Iterator[Path]:
    """A temporary sibling of ``output`` that becomes it, or disappears if the block raises."""
    directory = output.with_name(f"{output.name}.tmp-{socket.gethostname()}-{os.getpid()}")
    with _named(output, key):
        output.parent.mkdir(parents=True, exist_ok=True)
        _make_temporary(directory, key)
        try:
            yield directory
            for folder in (*(path for path in directory.iterdir() if path.is_dir()), directory):
                _sync_directory(folder)
            _rename(directory, output, key)
            _sync_directory(output.parent)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise


def _make_temporary(directory: Path, key: str) -> None:
    try:
        directory.mkdir()
    except FileExistsError as error:
        raise InputError(
            key,
            f"{directory.name}, the temporary name, to be free",
            f"{directory}, which exists",
            f"remove {directory}",
        ) from error


def _rename(directory: Path, output: Path, key: str) -> None:
    try:
        # An empty directory at the target is replaced, one that got something in it meanwhile is not.
        directory.rename(output)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise not_empty(output, key) from error
        raise


@contextmanager
def _named(output: Path, key: str) -> Iterator[None]:
    """Errors of the disk, as errors of the key that chose it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(key, f"room for the output below {output.parent}", "a full disk") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
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


def _remove_abandoned(output: Path, alone: bool) -> None:
    """Remove what killed runs left for this output.

    Without a lock those are only the runs of this host whose process has ended: any other may be at work. With one,
    ``alone``, all have ended; a container that restarts has another host name and would never find its own.
    """
    host = ".+" if alone else re.escape(socket.gethostname())
    pattern = re.compile(re.escape(f"{output.name}.tmp-") + host + r"-(\d+)")
    for path in output.parent.iterdir() if output.parent.is_dir() else ():
        found = pattern.fullmatch(path.name)
        if found and (alone or not _is_running(int(found[1]))):
            shutil.rmtree(path, ignore_errors=True)


def _is_running(pid: int) -> bool:
    # Our own number is that of a run before us: a container that restarts can have the same name and number.
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
