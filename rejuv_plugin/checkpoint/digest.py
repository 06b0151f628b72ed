# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of files, each read once as long as it does not change."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

# Called with the phase, what is done and what there is in all: bytes in these phases, examples in any other.
Progress = Callable[[str, int, int], None]
BYTE_PHASES = ("hash", "write")

_BLOCK_BYTES = 8 << 20


def sha256_files(paths: Iterable[Path], memo: Path | None = None, progress: Progress | None = None) -> dict[Path, str]:
    """Hash files.

    Args:
        paths: the files; each is read in blocks of 8 MiB.
        memo: a JSON file that remembers digests by real path, size, modification time and inode. It is written
            atomically, ignored when it cannot be read or written, and never needed for a correct answer.
        progress: called with ``("hash", bytes done, bytes in all)``; files found in the memo are not counted.

    Returns:
        Hexadecimal digests by path, as given.
    """
    known = _read_memo(memo)
    identities = {path: _identity(path) for path in paths}
    unknown = [path for path, identity in identities.items() if identity not in known]
    total, done = sum(path.stat().st_size for path in unknown), 0
    for path in unknown:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                done += len(block)
                if progress:
                    progress("hash", done, total)
        known[identities[path]] = digest.hexdigest()
    if memo and unknown:
        _write_memo(memo, known)
    return {path: known[identity] for path, identity in identities.items()}


def _identity(path: Path) -> str:
    real = path.resolve()
    stat = real.stat()
    return f"{real}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"


def _read_memo(memo: Path | None) -> dict[str, str]:
    if memo is None:
        return {}
    try:
        content = json.loads(memo.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {identity: digest for identity, digest in content.items() if isinstance(digest, str) and len(digest) == 64}


def _write_memo(memo: Path, known: dict[str, str]) -> None:
    partial = memo.with_name(f"{memo.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(known, indent=0, sort_keys=True))
        partial.replace(memo)
    except OSError:
        # The digests are right without it; the next call reads the files again.
        with suppress(OSError):
            partial.unlink(missing_ok=True)
