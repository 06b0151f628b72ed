# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The directory that an output is written to before it has its name; what killed runs left of such; durable files."""

import errno
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError
from .target import no_space, not_empty


@contextmanager
def all_or_nothing(output: Path, key: str, adopted: Path | None = None, keep: bool = False) -> Iterator[Path]:
    """A temporary sibling of ``output`` that becomes it, or disappears if the block raises.

    Args:
        output: absolute.
        key: how errors name it.
        adopted: what a killed run left, to go on with.
        keep: whether a failure of the system, not of the input, leaves the directory for another run to go on with.
    """
    directory = output.with_name(f"{output.name}.tmp-{socket.gethostname()}-{os.getpid()}")
    with named(output, key):
        output.parent.mkdir(parents=True, exist_ok=True)
        if adopted and adopted != directory:
            adopted.rename(directory)
        elif not adopted:
            _make(directory, key)
        try:
            yield directory
            for folder in (*(path for path in directory.iterdir() if path.is_dir()), directory):
                flush(folder)
            _rename(directory, output, key)
            flush(output.parent)
        except BaseException as error:
            if not keep or isinstance(error, InputError):
                shutil.rmtree(directory, ignore_errors=True)
            raise


@contextmanager
def durable(path: Path) -> Iterator[BinaryIO]:
    """A new file, flushed to the disk when the block ends."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def named(output: Path, key: str) -> Iterator[None]:
    """Errors of the disk, as errors of the key that chose it."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str) and not _is_of(output, Path(error.filename)):
            # An input's.
            raise
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


def _is_of(output: Path, path: Path) -> bool:
    """Whether a path is the output, one of its parents, its temporary directory, or below one of these two."""
    if path in (output, *output.parents):
        return True
    top = path.relative_to(output.parent).parts[0] if path.is_relative_to(output.parent) else ""
    return top == output.name or top.startswith((f"{output.name}.tmp-", f".{output.name}."))


def abandoned(output: Path, alone: bool) -> list[Path]:
    """What killed runs left for this output, sorted.

    Without a lock those are only the runs of this host whose process has ended: any other may be at work. With one,
    ``alone``, all have ended; a container that restarts has another host name and would never find its own.
    """
    host = ".+" if alone else re.escape(socket.gethostname())
    pattern = re.compile(re.escape(f"{output.name}.tmp-") + host + r"-(\d+)")
    found = []
    for path in output.parent.iterdir() if output.parent.is_dir() else ():
        match = pattern.fullmatch(path.name)
        # A file is nothing of ours.
        if match and path.is_dir() and (alone or not _is_running(int(match[1]))):
            found.append(path)
    return sorted(found)


def remove(paths: list[Path]) -> None:
    """Remove directories, as far as that is possible."""
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)


def _make(directory: Path, key: str) -> None:
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
        if output.is_dir():
            # It was made with a mode for a reason: that a group can write in it, say.
            shutil.copystat(output, directory)
            with suppress(OSError):
                os.chown(directory, -1, output.stat().st_gid)
        # An empty directory at the target is replaced, one that got something in it meanwhile is not.
        directory.rename(output)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise not_empty(output, key) from error
        raise


def flush(path: Path) -> None:
    """Flush a file, or the entries of a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
