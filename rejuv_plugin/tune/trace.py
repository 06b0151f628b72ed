# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What has been asked is not asked again: a file with the scores of every answer, by the content that decides them."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoint.small_file import parse_json
from ..errors import InputError
from .scored import NOTHING, Candidate, Scored

_BEGINNING = b'{"key": "'


class Trace:
    """A file of one JSON object a line, each some prompts of one candidate, in their order; it only grows. It is one
    process's at a time: see `run.tune`.

    Lines with another key are of other inputs or settings: they stay, and are not looked at. A last line that a killed
    run left unfinished is taken away.
    """

    def __init__(self, path: Path, key: str) -> None:
        """
        Args:
            path: of the file, which need not exist; its directory must.
            key: what all else that decides scores amounts to, see `address`.

        Raises:
            InputError: named by the file; it is no trace.
        """
        self._path, self._key = path, key
        self._known: dict[Candidate, Scored] = {}
        for line in _lines(path):
            if line["key"] == key:
                candidate = Candidate(line["alpha"], line["rho"])
                before = self._known.get(candidate, NOTHING)
                # On a file system without locks another process may have added the same prompts meanwhile.
                if line["first"] == len(before):
                    self._known[candidate] = before + _from_json(line)

    def known(self, candidate: Candidate) -> Scored:
        """What is known of a candidate: of its first prompts, maybe of none."""
        return self._known.get(candidate, NOTHING)

    def add(self, candidate: Candidate, more: Scored) -> None:
        """Keep what was found of the prompts that follow those of `known`."""
        before = self.known(candidate)
        line = {
            "key": self._key,
            "alpha": candidate.alpha,
            "rho": candidate.rho,
            "first": len(before),
            "scores": more.scores,
            "lengths": more.lengths,
            "finished": more.finished,
            "entropy": _nulls(more.entropy),
            "top1": _nulls(more.top1),
            "seconds": round(more.seconds, 3),
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._known[candidate] = before + more


def address(content: Mapping[str, Any]) -> str:
    """64 hexadecimal digits, equal for equal JSON content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    whole, _, rest = path.read_bytes().rpartition(b"\n")
    try:
        found = [parse_json(line) for line in whole.splitlines()]
        for line in found:
            _ = line["key"], line["alpha"], line["rho"], line["first"], _from_json(line)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _no_trace(path) from None
    if rest[: len(_BEGINNING)] != _BEGINNING[: len(rest)]:
        raise _no_trace(path)
    if rest:
        # Appending to it would make two lines unreadable.
        with path.open("r+b") as file:
            file.truncate(len(whole) + 1 if whole else 0)
    return found


def _no_trace(path: Path) -> InputError:
    return InputError(str(path), "a trace of rejuv tune", "something else", "remove it, or choose another directory")


def _from_json(line: Mapping[str, Any]) -> Scored:
    return Scored(
        line["scores"],
        line["lengths"],
        line["finished"],
        _nans(line["entropy"]),
        _nans(line["top1"]),
        float(line["seconds"]),
        cached=True,
    )


def _nulls(rows: list[list[float]]) -> list[list[float | None]]:
    return [[None if math.isnan(value) else value for value in row] for row in rows]


def _nans(rows: list[list[float | None]]) -> list[list[float]]:
    return [[math.nan if value is None else value for value in row] for row in rows]
