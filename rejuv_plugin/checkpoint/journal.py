# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a run has finished, written as it goes, so that another run can go on where it was killed.

A file of JSON lines in the temporary directory: first what the run makes, then a line for each weight file that is on
the disk. A line that was cut short, and all after it, count as not written.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..ops.drift import Drift
from .digest import digest_files, identity
from .headers import read_header
from .plan import Plan
from .provenance import FORMAT, settings
from .small_file import parse_json, write_text
from .stream import Shard

JOURNAL = ".rejuvenation-journal"


class Journal:
    """Appends to the journal of ``directory``; each line is on the disk when the call returns."""

    def __init__(self, directory: Path, plan: Plan, finished: Mapping[str, Shard]) -> None:
        """Begin it anew with what is finished already."""
        self._path = directory / JOURNAL
        lines = [_described(plan), *map(_record, finished.values())]
        # All or nothing: what it had, work of a run before this one, is not to be lost by a death here.
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in lines))

    def add(self, shard: Shard) -> None:
        """Note that a weight file is finished: written and flushed."""
        with self._path.open("a") as file:
            file.write(json.dumps(_record(shard)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """The run is complete."""
        self._path.unlink()


def claimed(directory: Path, plan: Plan) -> dict[str, Shard]:
    """The weight files that the journal of ``directory`` calls finished, by name; none if it is of another plan.

    The same plan: equal settings, and inputs of equal path, size, modification time and inode.
    """
    try:
        lines = (directory / JOURNAL).read_bytes().splitlines(keepends=True)
        if parse_json(lines[0]) != _described(plan):
            return {}
    except (OSError, ValueError, IndexError):
        return {}
    found: dict[str, Shard] = {}
    for line in lines[1:]:
        try:
            shard = _shard(parse_json(line)) if line.endswith(b"\n") else None
        except (ValueError, TypeError, LookupError, AttributeError):
            shard = None
        if shard is None or shard.file not in plan.layout.headers:
            break
        found[shard.file] = shard
    return found


def verified(directory: Path, plan: Plan) -> dict[str, Shard]:
    """Those of `claimed` whose files are there with the very bytes that were written: each is read and hashed."""
    found = {}
    for file, shard in claimed(directory, plan).items():
        path = directory / file
        try:
            header = read_header(path, file)
            same = header.prefix == plan.layout.headers[file].prefix
            if same and digest_files({path: header})[path] == shard.output:
                found[file] = shard
        except (OSError, ValueError):
            continue
    return found


def _described(plan: Plan) -> dict[str, Any]:
    files = sorted({identity(path) for path in plan.input_paths})
    # Through JSON and back, as the line that it is compared with.
    return json.loads(json.dumps({"format": FORMAT, "settings": settings(plan), "files": files}))


def _record(shard: Shard) -> dict[str, Any]:
    return {
        "file": shard.file,
        "output": shard.output,
        "sft": shard.sft,
        "drift_sft": {group: [d.moved, d.base] for group, d in shard.drift_sft.items()},
        "drift_output": {group: [d.moved, d.base] for group, d in shard.drift_output.items()},
    }


def _shard(record: dict[str, Any]) -> Shard:
    sft, output = (
        {group: Drift(float(moved), float(base)) for group, (moved, base) in record[side].items()}
        for side in ("drift_sft", "drift_output")
    )
    return Shard(str(record["file"]), str(record["output"]), str(record["sft"]), {}, sft, output)
