# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Locks: a wait is told, and a file system without them is refused."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from rejuv_plugin.checkpoint import locks
from rejuv_plugin.checkpoint.locks import locked
from rejuv_plugin.errors import InputError


def test_a_wait_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_FIRST_SECONDS", 0.02)
    monkeypatch.setattr(locks, "_AGAIN_SECONDS", 0.01)
    holder = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    told: list[str] = []

    def tell(message: str, *values: object) -> None:
        told.append(message % values)
        if len(told) == 2:
            os.close(holder)

    monkeypatch.setattr(locks._log, "warning", tell)
    with locked(tmp_path / "lock", "--cache", tmp_path / "made"):
        assert told == [f"waiting for another process to make {tmp_path / 'made'}"] * 2
    assert locks._log.name.startswith("rejuv_plugin.")


def test_a_free_lock_is_taken_in_silence_and_freed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        with locked(tmp_path / "lock", "--cache", tmp_path / "made"):
            other = (tmp_path / "lock").open()
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            other.close()
    assert caplog.messages == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSYS, "x"), NotImplementedError("x")])
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    # No such file system is at hand, so its answer is put in the system's mouth.
    def refuse(descriptor: int, operation: int) -> None:
        raise error

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InputError) as caught, locked(tmp_path / "lock", "--cache", tmp_path / "made"):
        pytest.fail("ran without a lock")
    assert str(caught.value).startswith("--cache: expected a directory on a file system with locks")
    assert "Fix: set --cache to a file system with locks" in str(caught.value)


def test_a_lock_is_every_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file stays, and a cache is shared by those who may write to its directory."""
    before = os.umask(0o022)
    try:
        with locked(tmp_path / "lock", "--cache", tmp_path / "made"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o666

    # Root may open any file, so another user's answer is put in the system's mouth.
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    refused = pytest.raises(InputError, match=rf"got {tmp_path / 'lock'} \(Permission denied\)")
    with refused, locked(tmp_path / "lock", "--cache", tmp_path / "made"):
        pass


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = pytest.raises(InputError, match=r"^--cache: expected a directory that can be written")
    with refused, locked(tmp_path / "file" / "lock", "--cache", tmp_path / "made"):
        pytest.fail("ran without a lock")
