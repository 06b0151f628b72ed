# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration files: dialogues from parquet or jsonl; and the prompts of RL data, to be answered."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..checkpoint.small_file import write_text
from ..errors import InputError, not_readable, one_line
from .prompts import check_file

Message = dict[str, Any]
JUDGED_BY = ("data_source", "reward_model", "extra_info")
"""Columns of verl's RL data that say how an answer is judged."""
_WRITE_MESSAGES = "write each message as {role, content}"
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
    return [_dialogue(row, number, key) for number, row in enumerate(_rows(path, key))]


def read_prompts(path: str, column: str, key: str) -> list[tuple[list[Message], dict[str, Any]]]:
    """Read the prompts of RL data, as verl has them: each a string, or a list of ``{role, content}``.

    Args:
        path: a ``.parquet`` or ``.jsonl`` file.
        column: the column of the prompts. Of parquet no others are read but those that a reward function is given.
        key: how errors name the file.

    Returns:
        Each prompt's messages, with what its row has for a reward function.

    Raises:
        InputError: named ``key``; no such file or column, no rows, or a prompt that is neither.
    """
    rows = _rows(path, key, (column, *JUDGED_BY))
    return [(_prompt(row, column, number, key), row) for number, row in enumerate(rows)]


def write_pairs(pairs: list[dict[str, Any]], path: Path) -> None:
    """Write ``prompt`` and ``response`` as jsonl, all or nothing; the directory is created."""
    write_text(path, "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs))


def _rows(path: str, key: str, columns: Sequence[str] = ()) -> list[Any]:
    file = check_file(path, key)
    rows = _parquet(file, key, columns) if file.suffix == ".parquet" else _jsonl(file, key)
    if not rows:
        raise InputError(key, "a file with rows", f"{path}, which has no rows", "give some dozens of examples")
    return rows


def _parquet(file: Path, key: str, columns: Sequence[str]) -> list[Any]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_schema, read_table
    except ImportError:
        raise InputError(
            key, "pyarrow, to read parquet", "an environment without it", "pip install pyarrow, or give a .jsonl file"
        ) from None
    try:
        there = read_schema(file).names
        # RL data may hold images beside them. Without the first one all are read, for the error that names them.
        wanted = [name for name in columns if name in there] if set(columns[:1]) <= set(there) else []
        return read_table(file, columns=wanted or None).to_pylist()
    except (OSError, ArrowException) as error:
        reason = one_line(error)
        raise InputError(key, "a readable parquet file", f"{file} ({reason})", "write it again") from None


def _jsonl(file: Path, key: str) -> list[Any]:
    try:
        # Not splitlines: JSON strings may hold U+2028 and its like as they are.
        text = file.read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        if "\\ud" in text.lower():
            # Half of a surrogate pair is JSON, and no text that a tokenizer could read.
            json.dumps(rows, ensure_ascii=False).encode()
        return rows
    except PermissionError:
        raise not_readable(key, file) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(key, "one JSON object a line", f"{file} ({error})", "write it again") from None


def _prompt(row: Any, column: str, number: int, key: str) -> list[Message]:
    if not isinstance(row, dict) or column not in row:
        names = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise InputError(
            key,
            f"a column {column}",
            f"{names or 'no such column'} in row {number}",
            f"use one of them, or name it {column}",
        )
    prompt = row[column]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if (
        not isinstance(messages, list)
        or not messages
        or not all(isinstance(m, dict) and m.get("role") and isinstance(m.get("content"), str) for m in messages)
    ):
        raise InputError(key, f"text or chat messages in {column}", f"something else in row {number}", _WRITE_MESSAGES)
    return [_without_nulls(m) for m in messages]


def _dialogue(row: Any, number: int, key: str) -> list[Message]:
    if not isinstance(row, dict) or not ("messages" in row or {"prompt", "response"} <= row.keys()):
        names = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
        fix = "rename the columns"
        if isinstance(row, dict) and "prompt" in row:
            fix = "if these are prompts alone, as RL has them, make answers to them (rejuv calibrate); else " + fix
        raise InputError(key, _COLUMNS, f"{names} in row {number}", fix)
    if "messages" in row:
        messages = row["messages"]
    else:
        prompt = row["prompt"]
        before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        messages = [*before, {"role": "assistant", "content": row["response"]}] if isinstance(before, list) else None
    if not isinstance(messages, list) or not all(isinstance(m, dict) and m.get("role") for m in messages):
        raise InputError(key, _COLUMNS, f"something else in row {number}", _WRITE_MESSAGES)
    if not any(m["role"] == "assistant" and (m.get("content") or m.get("tool_calls")) for m in messages):
        raise InputError(key, "a response in each row", f"none in row {number}", "leave rows without a response out")
    return [_without_nulls(m) for m in messages]


def _without_nulls(message: Message) -> Message:
    # Parquet gives every message the fields of all of them, null where it has none, and templates ask `is defined`.
    return {name: value for name, value in message.items() if value is not None}
