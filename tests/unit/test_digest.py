# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Digests: right with any memo, and not computed twice with a good one."""

import hashlib
import json
import os
import resource
from pathlib import Path

import pytest
import torch
import xxhash
from checkpoints import write_safetensors
from digest_reference import digest_reference

from rejuv_plugin.checkpoint.digest import digest_files, sha256_file
from rejuv_plugin.checkpoint.headers import read_header


def read(paths: list[Path], memo: Path | None) -> tuple[list[str], int]:
    """The digests, and how many bytes had to be read for them."""
    last = [0]
    digests = digest_files(dict.fromkeys(paths), memo, lambda phase, done, total: last.append(done))
    return [digests[path] for path in paths], last[-1]


def digest(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def test_unchanged_files_are_read_once(tmp_path: Path) -> None:
    a, b, memo = tmp_path / "a", tmp_path / "b", tmp_path / "memo.json"
    a.write_bytes(b"a" * 10)
    b.write_bytes(b"b" * 20)
    expected = [digest(b"a" * 10), digest(b"b" * 20)]
    assert read([a, b], memo) == (expected, 30)
    assert read([a, b], memo) == (expected, 0)
    assert read([a, b], None) == (expected, 30)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "memo.json"]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    file, memo = tmp_path / "a", tmp_path / "memo.json"
    file.write_bytes(b"old")
    os.utime(file, ns=(0, 0))
    read([file], memo)
    file.write_bytes(b"new")
    assert read([file], memo) == ([digest(b"new")], 3)
    # Replaced by a file of the same size and time: the inode tells.
    (tmp_path / "b").write_bytes(b"NEW")
    time = file.stat().st_mtime_ns
    (tmp_path / "b").replace(file)
    os.utime(file, ns=(time, time))
    assert read([file], memo) == ([digest(b"NEW")], 3)


def test_links_share_the_digest_of_their_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "link").symlink_to("a")
    memo = tmp_path / "memo.json"
    read([tmp_path / "a"], memo)
    assert read([tmp_path / "link"], memo) == ([digest(b"a")], 0)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", json.dumps({"x": 1}).encode()])
def test_a_corrupt_memo_is_ignored(tmp_path: Path, content: bytes) -> None:
    file, memo = tmp_path / "a", tmp_path / "memo.json"
    file.write_bytes(b"a")
    memo.write_bytes(content)
    assert read([file], memo) == ([digest(b"a")], 1)
    assert read([file], memo) == ([digest(b"a")], 0)


@pytest.mark.parametrize("step", ["make", "write", "replace"])
def test_a_memo_that_cannot_be_written(tmp_path: Path, step: str) -> None:
    file, memo = tmp_path / "a", tmp_path / "memo.json"
    file.write_bytes(b"a")
    if step == "make":
        memo = file / "memo.json"
    if step == "replace":
        memo.mkdir()
    before, (soft, hard) = sorted(tmp_path.iterdir()), resource.getrlimit(resource.RLIMIT_FSIZE)
    # As a full disk: no file may have a byte.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0 if step == "write" else soft, hard))
    try:
        assert read([file], memo) == ([digest(b"a")], 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(tmp_path.iterdir()) == before, "a partial memo was left"


def test_a_memo_entry_that_is_no_digest_is_ignored(tmp_path: Path) -> None:
    file, memo = tmp_path / "a", tmp_path / "memo.json"
    file.write_bytes(b"a")
    read([file], memo)
    memo.write_text(json.dumps({identity: "short" for identity in json.loads(memo.read_text())}))
    assert read([file], memo) == ([digest(b"a")], 1)


def test_a_weight_file_is_hashed_by_pieces(tmp_path: Path) -> None:
    tensors = [
        ("long", torch.arange(2**20 + 7, dtype=torch.float32)),
        ("empty", torch.zeros(0, 3, dtype=torch.bfloat16)),
        ("short", torch.ones(5, dtype=torch.float16)),
    ]
    write_safetensors(tmp_path / "a.safetensors", tensors, order=[2, 0, 1])
    path = tmp_path / "a.safetensors"
    calls: list[int] = []
    digests = digest_files({path: read_header(path, "a")}, None, lambda phase, done, total: calls.append(done))
    assert digests == {path: digest_reference(path)}
    assert calls[-1] == path.stat().st_size


def test_sha256_of_data(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * 3_000_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"a" * 3_000_000).hexdigest()
