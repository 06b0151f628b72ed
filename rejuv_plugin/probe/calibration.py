# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration files: dialogues from parquet or jsonl."""

import json
from pathlib import Path
from typing import Any

from ..errors import InputError

Message = dict[str, Any]
_SUFFIXES = (".parquet", ".jsonl")
_COLUMNS = "string columns prompt and response, or a column messages of {role, content}"


def read_dialogues(path: str, key: str) -> list[list[Message]]:
    """Read a calibration file.

    Each row is one dialogue: ``messages``, a list of ``{role, content}``; or ``prompt`` (a string, or a list of such
    messages) and ``response`` (a string).

    Args:
        path: a ``.parquet`` or ``.jsonl`` file.
        key: how errors name it.

    Returns:
        The messages of each row; each dialogue has something that the model said (role ``assistant``).

    Raises:
        InputError: named ``key``; no such file, other columns, no rows, or a row without a response.
    """
    file = check_file(path, key)
    rows = _parquet(file, key) if file.suffix == ".parquet" else _jsonl(file, key)
    if not rows:
        raise InputError(key, "calibration data", f"{path}, which has no rows", "give some dozens of examples")
    return [_dialogue(row, number, key) for number, row in enumerate(rows)]


def check_file(path: str, key: str) -> Path:
    """The calibration file, which is there and has a known suffix.

    Raises:
        InputError: named ``key``.
    """
    file = Path(path).expanduser()
    if not file.is_file() or file.suffix not in _SUFFIXES:
        got = f"{path!r}, which is {'neither' if file.is_file() else 'no file'}"
        raise InputError(key, f"a {' or '.join(_SUFFIXES)} file", got, f"check {key}")
    return file


def _parquet(file: Path, key: str) -> list[Any]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError:
        raise InputError(
            key, "pyarrow, to read parquet", "an environment without it", "pip install pyarrow, or give a .jsonl file"
        ) from None
    try:
        return read_table(file).to_pylist()
    except (OSError, ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(key, "a readable parquet file", f"{file} ({reason})", "write it again") from None


def _jsonl(file: Path, key: str) -> list[Any]:
    try:
        # Not splitlines: JSON strings may hold U+2028 and its like as they are.
        return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(key, "one JSON object a line", f"{file} ({error})", "write it again") from None


def _dialogue(row: Any, number: int, key: str) -> list[Message]:
    if not isinstance(row, dict) or not ("messages" in row or {"prompt", "response"} <= row.keys()):
        names = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise InputError(key, _COLUMNS, f"{names} in row {number}", "rename the columns")
    if "messages" in row:
        messages = row["messages"]
    else:
        prompt = row["prompt"]
        before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        messages = [*before, {"role": "assistant", "content": row["response"]}] if isinstance(before, list) else None
    if not isinstance(messages, list) or not all(isinstance(m, dict) and m.get("role") for m in messages):
        raise InputError(key, _COLUMNS, f"something else in row {number}", "write each message as {role, content}")
    if not any(m["role"] == "assistant" and (m.get("content") or m.get("tool_calls")) for m in messages):
        raise InputError(key, "a response in each row", f"none in row {number}", "leave rows without a response out")
    # Parquet gives every message the fields of all of them, null where it has none, and templates ask `is defined`.
    return [{name: value for name, value in m.items() if value is not None} for m in messages]
