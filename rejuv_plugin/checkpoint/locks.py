# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""One process at a time, by a lock of the file system; whoever waits for it says so."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# A dependency of huggingface_hub, which is one of ours, and the lock that its own cache of downloads relies on.
from filelock import FileLock, Timeout

from ..errors import InputError

_log = logging.getLogger(__name__)
# Most waits end before anyone wonders; of a long one, a line a minute says that the job is not hung.
_FIRST_SECONDS, _AGAIN_SECONDS = 5.0, 60.0
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


@contextmanager
def locked(path: Path, key: str, makes: Path, *, needed: bool = True, leave: bool = True) -> Iterator[bool]:
    """Hold the lock file ``path`` while the block runs, and wait for it as long as another process does.

    Args:
        path: the lock file; created in a directory that exists.
        key: how errors name its directory.
        makes: what is made under the lock: how the log names the wait.
        needed: False on a file system without locks runs the block without one.
        leave: whether the file stays.

    Yields:
        Whether another process held it at first.

    Raises:
        InputError: named ``key``; the lock file cannot be written, or the file system has no locks.
    """
    # Never a lock that is a mere file: it would outlive a holder that is killed, and every later run would wait.
    # Whoever may write to the directory may hold it: caches are shared by users.
    lock = FileLock(path, mode=0o666, fallback_to_soft=False)
    try:
        waited = _acquire(lock, makes)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, NotImplementedError) or error.errno in _NO_LOCKS:
            if not needed:
                path.unlink(missing_ok=True)
                yield False
                return
            raise InputError(
                key,
                "a directory on a file system with locks (flock)",
                f"{path.parent}, where there are none ({error})",
                f"set {key} to a file system with locks, such as a local disk or NFS 4",
            ) from None
        at = path if path.exists() else path.parent
        raise InputError(
            key, "a directory that can be written", f"{at} ({error.strerror})", f"set {key} elsewhere"
        ) from None
    try:
        yield waited
    finally:
        if not leave:
            # While it is held: who waits for the removed file notices that, and makes a new one.
            path.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, makes: Path) -> bool:
    """Returns whether another process held it at first."""
    seconds, waited = 0.0, False
    while True:
        try:
            lock.acquire(timeout=seconds)
            return waited
        except Timeout:
            if waited:
                _log.warning("waiting for another process to make %s", makes)
            seconds, waited = (_AGAIN_SECONDS if waited else _FIRST_SECONDS), True
