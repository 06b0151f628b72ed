# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Reset sets as files: small JSON to inspect, compare, and give to another alpha."""

import json
import os
from pathlib import Path

from ..errors import InputError
from ..neurons.reset_set import ResetSet, from_json
from .small_file import write_text
from .target import check_writable


def load(path: str | Path, key: str) -> ResetSet:
    """Read a reset set.

    Raises:
        InputError: named ``key``; no such file, not JSON, or not a reset set.
    """
    path = Path(path).expanduser()
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON"
        raise InputError(key, "a readable reset set", f"{path} ({reason})", f"check {key}") from None
    return from_json(content, key)


def check_new(path: Path, key: str, fix: str = "remove it, or give another path") -> None:
    """Check, before any work, that a file can be written to ``path``.

    Raises:
        InputError: named ``key``; something is there already, or its directory cannot be written.
    """
    if os.path.lexists(path):
        raise InputError(
            key,
            "a file that does not exist",
            f"{path}, which does",
            fix,
        )
    check_writable(path.resolve().parent, key)


def save(reset_set: ResetSet, path: Path) -> None:
    """Write a reset set, all or nothing; the directory is created, a file at ``path`` is replaced."""
    write_text(path, json.dumps(reset_set.to_json(), allow_nan=False) + "\n")
