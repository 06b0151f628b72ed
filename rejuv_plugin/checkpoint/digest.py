# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Digests of files, each read once as long as it does not change."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import xxhash

from .headers import Header
from .pieces import Pieces, read_exactly
from .progress import Progress
from .small_file import read_json, write_text

_BLOCK_BYTES = 1 << 20


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits: for small ones, such as data."""
    return _whole(path, hashlib.sha256(), lambda count: None)


def digest_files(
    files: Mapping[Path, Header | None], memo: Path | None = None, progress: Progress | None = None
) -> dict[Path, str]:
    """Digests of a checkpoint's files: of weight files by `pieces`, of any other file XXH3-128 of its bytes.

    Args:
        files: by path the header of a weight file, or None.
        memo: a JSON file that remembers digests by real path, size, modification time and inode. It is written
            atomically, ignored when it cannot be read or written, and never needed for a correct answer.
        progress: called with ``("hash", bytes done, bytes in all)``; files found in the memo are not counted.

    Returns:
        32 hexadecimal digits by path, as given.
    """
    return _digests({path: _reader(header) for path, header in files.items()}, memo, progress)


def digest_bytes(data: bytes) -> str:
    """The digest of a file that is no weight file, from its content."""
    return xxhash.xxh3_128_hexdigest(data)


_Reader = Callable[[Path, Callable[[int], None]], str]


def _digests(readers: Mapping[Path, _Reader], memo: Path | None, progress: Progress | None) -> dict[Path, str]:
    known = _read_memo(memo)
    identities = {path: identity(path) for path in readers}
    unknown = [path for path in readers if identities[path] not in known]
    total, done = sum(path.stat().st_size for path in unknown), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress("hash", done, total)

    for path in unknown:
        known[identities[path]] = readers[path](path, advance)
    if memo and unknown:
        # The digests are right without it; the next call reads the files again.
        with suppress(OSError):
            write_text(memo, json.dumps(known, indent=0, sort_keys=True))
    return {path: known[identity] for path, identity in identities.items()}


def _reader(header: Header | None) -> _Reader:
    if header is None:
        return lambda path, advance: _whole(path, xxhash.xxh3_128(), advance)
    return lambda path, advance: _by_pieces(path, header, advance)


def _whole(path: Path, digest: Any, advance: Callable[[int], None]) -> str:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()


def _by_pieces(path: Path, header: Header, advance: Callable[[int], None]) -> str:
    whole, buffer = xxhash.xxh3_128(), memoryview(bytearray(_BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        for start, end in Pieces(header).spans():
            piece = xxhash.xxh3_128()
            # Pieces of float64 are larger than the buffer, and a header may be very large.
            for first in range(start, end, _BLOCK_BYTES):
                part = buffer[: min(_BLOCK_BYTES, end - first)]
                piece.update(read_exactly(file.fileno(), first, part, path))
                advance(len(part))
            whole.update(piece.digest())
    return whole.hexdigest()


def identity(path: Path) -> str:
    """What tells a file from what it was before a change: real path, size, modification time and inode."""
    real = path.resolve()
    stat = real.stat()
    return f"{real}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"


def _read_memo(memo: Path | None) -> dict[str, str]:
    if memo is None:
        return {}
    try:
        content = read_json(memo)
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {identity: digest for identity, digest in content.items() if isinstance(digest, str) and len(digest) == 32}
