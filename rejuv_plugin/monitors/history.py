# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a run's monitors have seen, kept in the run's directory as JSON lines that are only ever appended to.

``plasticity.jsonl`` has a line a step, ``{"step": 7, "metrics": {name: number}, "layers": {name: [number or null]}}``
(step 0: validation before training),
and ``alarms.jsonl`` one for each alarm that was raised or ended. A run that goes on at a checkpoint writes
``{"resumed_at": step}`` first: it makes later steps again, so what is above that line about them no longer counts.
A killed run or a full disk may leave a line that was cut short; it counts as not written.
"""

import json
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from ..errors import InputError

PLASTICITY, ALARMS = "plasticity.jsonl", "alarms.jsonl"

Record = dict[str, Any]

# Beyond it a float no longer tells two steps apart.
_LAST_STEP = 2**53


class History:
    """Appends to one file. A line is with the operating system when the call returns, and survives a killed process."""

    def __init__(self, path: Path, resumed_at: int = 0) -> None:
        """Begin, or go on, after step ``resumed_at``. Directory and file are created; what is there stays.

        Raises:
            OSError: it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._last, self._is_cut = path, resumed_at, False
        if path.exists() and path.stat().st_size:
            # Below a line that was cut short, not behind it.
            self._append("\n" + _line({"resumed_at": resumed_at}))

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a line, whose ``step`` says where it belongs.

        Raises:
            OSError: it cannot be written.
            ValueError: a number is not finite.
        """
        line = _line(record)
        # After a write that failed, as after a kill: below what may be half a line, with the mark of having gone on.
        self._append("\n" + _line({"resumed_at": self._last}) + line if self._is_cut else line)
        self._last = record["step"]

    def _append(self, text: str) -> None:
        self._is_cut = True
        # Opened anew for each line: a file that was moved away, or a disk that came back, does not end it.
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)
        self._is_cut = False


def step_record(step: int, metrics: Mapping[str, float], layers: Mapping[str, list[float]]) -> Record:
    """A line of ``plasticity.jsonl``: metrics that are not finite are left out, layers without a value are null."""
    return {
        "step": step,
        "metrics": {name: float(value) for name, value in metrics.items() if isfinite(value)},
        "layers": {name: [float(v) if isfinite(v) else None for v in values] for name, values in layers.items()},
    }


def read_steps(path: Path, key: str) -> list[Record]:
    """``plasticity.jsonl``, by ascending step; the last line of each step that counts.

    Args:
        path: the file.
        key: how errors name it.

    Raises:
        InputError: named ``key``; no such file, no step in it, or a line that is none of ours.
    """
    found: dict[int, Record] = {}
    for number, record in _lines(path, key):
        if "resumed_at" in record:
            # At 0 a run begins anew, its validation before training too.
            found = {step: kept for step, kept in found.items() if step <= record["resumed_at"] != 0}
        elif not _is_step(record):
            raise _refused(key, path, number)
        else:
            found[record["step"]] = record
    if not found:
        raise InputError(
            key, "at least one step", f"none in {path}", "wait for the first one, or give the file that a run wrote"
        )
    return [found[step] for step in sorted(found)]


def read_alarms(path: Path, key: str) -> list[Record]:
    """``alarms.jsonl``, in order; empty if there is no such file. Errors: `read_steps`."""
    found: dict[tuple[int, str], Record] = {}
    for number, record in _lines(path, key) if path.exists() else ():
        if "resumed_at" in record:
            found = {at: kept for at, kept in found.items() if at[0] <= record["resumed_at"]}
        elif not _is_alarm(record):
            raise _refused(key, path, number)
        else:
            found[record["step"], record["name"]] = record
    return [found[at] for at in sorted(found, key=lambda at: at[0])]


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _lines(path: Path, key: str) -> Iterator[tuple[int, Record]]:
    """Number and content of each line that was written whole: records with a ``step`` and resume marks."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(
            key,
            f"a readable {path.name}",
            f"{path} ({error.strerror})",
            "give a run's directory",
        ) from None
    cut: int | None = None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        record = _parsed(line)
        if record is None:
            cut = cut or number
            continue
        # Only the last lines before the end, or before a run went on, can have been cut short.
        if cut is not None and "resumed_at" not in record:
            raise _refused(key, path, cut)
        cut = None
        yield number, record


def _parsed(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    number: Any = record.get("resumed_at", record.get("step"))
    return record if _is_whole(number) and 0 <= number < _LAST_STEP else None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (_is_whole(value) and abs(value) < _LAST_STEP)


def _is_step(record: Record) -> bool:
    metrics, layers = record.get("metrics"), record.get("layers", {})
    return (
        isinstance(metrics, dict)
        and all(map(_is_number, metrics.values()))
        and isinstance(layers, dict)
        and all(isinstance(row, list) and all(v is None or _is_number(v) for v in row) for row in layers.values())
    )


def _is_alarm(record: Record) -> bool:
    texts = [record.get(name) for name in ("name", "event", "seen")]
    return all(isinstance(text, str) for text in texts) and _is_whole(record.get("since"))


def _refused(key: str, path: Path, number: int) -> InputError:
    return InputError(key, "lines that the monitors wrote", f"another at {path}:{number}", "remove that line")
