# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a directory holds that there is a page for, and the JSON of a diagnosis or a tuning in it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError, one_line
from ..monitors.history import PLASTICITY
from .diagnosis import read, read_tuning

Kind = Literal["run", "diagnosis", "tuning"]

_FILES: dict[str, Kind] = {read.FILE: "diagnosis", read_tuning.FILE: "tuning"}


def kind_of(paths: Sequence[Path], key: str) -> Kind:
    """What to make a page of: one diagnosis, one tuning, or runs, which anything else is taken for.

    A directory of a run stays one if another program left a metrics.json in it.

    Raises:
        InputError: named ``key``: kinds are mixed, or more than one diagnosis or tuning is named.
    """
    kinds = [_kind(path, key) for path in paths]
    if len(set(kinds)) > 1:
        got = ", ".join(f"a {kind} in {path}" for kind, path in zip(kinds, paths, strict=True))
        raise InputError(key, "runs, or one diagnosis, or one tuning", got, "make a page of each kind")
    if len(kinds) > 1 and kinds[0] != "run":
        fix = (
            "diagnose the checkpoints together, with --sft for each" if kinds[0] == "diagnosis" else "one page for each"
        )
        raise InputError(key, f"one {kinds[0]}", f"{len(kinds)} of them", fix)
    return kinds[0]


def _kind(path: Path, key: str) -> Kind:
    if path.name in _FILES:
        return _FILES[path.name]
    if (path / PLASTICITY).exists():
        return "run"
    found = [name for name in _FILES if (path / name).is_file()]
    if len(found) > 1:
        fix = f"name one of them: {path / found[0]}, or {path / found[1]}"
        raise InputError(key, "one kind of result in a directory", f"{' and '.join(found)} in {path}", fix)
    if not found and path.is_dir():
        fix = (
            "give the directory of a diagnosis, of a tuning, or of a run that has made a step with its monitors on "
            "(rejuvenation.monitors.enabled)"
        )
        raise InputError(str(path), f"one of {', '.join((PLASTICITY, *_FILES))} in it", "none of them", fix)
    return _FILES[found[0]] if found else "run"


def load(path: Path, kind: Kind) -> dict[str, Any]:
    """The JSON of a diagnosis or a tuning: the file ``path``, or the one in that directory.

    Raises:
        InputError: named by ``path``; it cannot be read.
    """
    name = next(name for name, of in _FILES.items() if of == kind)
    file = path if path.name == name else path / name
    fix = f"give the {name} that rejuv wrote"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        said = one_line(error, 120)
        raise InputError(str(path), f"a readable {name}", said, fix) from None
    if not isinstance(found, dict):
        raise InputError(str(path), f"an object in {name}", type(found).__name__, fix)
    return found
