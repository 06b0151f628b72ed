# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Reset sets as files: small JSON to inspect, compare, and give to another alpha."""

import json
from pathlib import Path

from ..errors import InputError
from ..neurons.reset_set import ResetSet, from_json
from .small_file import read_json, write_text


def load(path: str | Path, key: str) -> ResetSet:
    """Read a reset set.

    Raises:
        InputError: named ``key``; no such file, not JSON, or not a reset set.
    """
    path = Path(path).expanduser()
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON"
        raise InputError(key, "a readable reset set", f"{path} ({reason})", f"check {key}") from None
    return from_json(content, key)


def save(reset_set: ResetSet, path: Path) -> None:
    """Write a reset set, all or nothing; the directory is created, a file at ``path`` is replaced."""
    write_text(path, json.dumps(reset_set.to_json(), allow_nan=False) + "\n")
