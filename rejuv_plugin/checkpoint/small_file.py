# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Small text files: JSON in, whatever is in it; text out, all or nothing."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Any:
    """What a JSON file has in it.

    Raises:
        OSError: it cannot be read.
        ValueError: as `parse_json`.
    """
    return parse_json(path.read_bytes())


def parse_json(text: str | bytes, of_pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """What JSON text says; ``of_pairs`` makes each object, as ``object_pairs_hook`` of `json.loads`.

    Raises:
        ValueError: it is not JSON, or nested too deep.
    """
    try:
        return json.loads(text, object_pairs_hook=of_pairs)
    except RecursionError:
        # To a caller a damaged file like any other, and none may forget it.
        raise ValueError("nested too deep") from None


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8: a reader sees all of it or what was there before. The directory is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
