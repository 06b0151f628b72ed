# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a directory's earlier search found stays there when another question is asked in it."""

import re
from pathlib import Path

from ..checkpoint.small_file import read_json, write_text

RESULT, REPORT, TRACE = "tuning.json", "report.html", "trace.jsonl"
_KEPT = re.compile(r"tuning\.[1-9][0-9]*\.json|report\.[1-9][0-9]*\.html")


def is_kept(name: str) -> bool:
    """Whether a file is named as those that `keep` makes."""
    return _KEPT.fullmatch(name) is not None


def kept(directory: Path) -> list[Path]:
    """The earlier results in a directory, oldest first."""
    found = [path for path in directory.glob("tuning.*.json") if is_kept(path.name)]
    return sorted(found, key=lambda path: int(path.name.split(".")[1]))


def keep(directory: Path, question: str) -> None:
    """Copy result and report to ``tuning.<n>.json`` and ``report.<n>.html``, unless they are of the same question: then
    the trace has all that they were made of, and the same command makes them again.

    Args:
        directory: of the search, whose lock is held.
        question: of the search that is about to write there, as tuning.json has it.

    Raises:
        OSError: a file cannot be read or written.
    """
    result = directory / RESULT
    if not result.exists() or _question(result) == question:
        return
    n = 1
    while any((directory / _numbered(name, n)).exists() for name in (RESULT, REPORT)):
        n += 1
    # Copies, not moved: whenever this is killed, what was there is there.
    for name in (RESULT, REPORT):
        if (directory / name).exists():
            write_text(directory / _numbered(name, n), (directory / name).read_text(encoding="utf-8"))


def _question(result: Path) -> str | None:
    """None of one that an older version wrote, which did not say."""
    try:
        return read_json(result)["question"]
    except (ValueError, LookupError, TypeError):
        return None


def _numbered(name: str, n: int) -> str:
    stem, _, suffix = name.partition(".")
    return f"{stem}.{n}.{suffix}"
