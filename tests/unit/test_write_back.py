# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What the system is told about a file that is being written."""

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest

from rejuv_plugin.checkpoint.write_back import begin_flush, reserve

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="calls of Linux")


def test_the_room_of_a_file_is_taken_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        reserve(file.fileno(), 1_000_001)
        assert os.fstat(file.fileno()).st_blocks * 512 >= 1_000_001
        file.write(b"beginning")
    assert path.stat().st_size == 1_000_001
    begin_flush(path, 0, 9)
    assert path.read_bytes() == b"beginning" + bytes(1_000_001 - 9)


def test_a_disk_that_is_too_full_says_so_before_the_work() -> None:
    # A file system in memory refuses at once; one on a disk would be filled first.
    shared = Path("/dev/shm")
    if not shared.is_dir():
        pytest.skip("no /dev/shm")
    path = shared / f"rejuvenation-test-{os.getpid()}"
    try:
        with path.open("wb") as file, pytest.raises(OSError) as caught:
            reserve(file.fileno(), shutil.disk_usage(shared).total + (1 << 30))
    finally:
        path.unlink()
    assert caught.value.errno == errno.ENOSPC


def test_what_has_no_room_to_reserve_is_left_alone() -> None:
    reading, writing = os.pipe()
    try:
        reserve(writing, 10)
    finally:
        os.close(reading)
        os.close(writing)
