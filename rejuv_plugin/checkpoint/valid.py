# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a checkpoint of ours is whole, as far as that costs nothing; `verify` reads all of it."""

from pathlib import Path
from typing import Any

from ..errors import InputError
from .layout import MANIFEST
from .provenance import FORMAT
from .small_file import read_json


def read_valid(path: Path, address: str, key: str) -> dict[str, Any]:
    """The manifest of a checkpoint, after a check that is cheap at any size: its key, and each file's size.

    Raises:
        InputError: named ``key``; something is missing or has changed. It is never removed: it may be someone's work.
    """
    problem = None
    try:
        manifest = read_json(path / MANIFEST)
        if manifest["format"] != FORMAT or manifest["key"] != address:
            problem = f"a {MANIFEST} of something else"
        for name, file in manifest["outputs"].items():
            if (path / name).stat().st_size != file["size"]:
                problem = f"{name} of another size"
    except FileNotFoundError as error:
        problem = f"no {Path(error.filename).name}"
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        problem = f"a {MANIFEST} that cannot be read ({type(error).__name__})"
    if problem:
        raise InputError(key, f"{path} to be as its {MANIFEST} says", problem, f"remove {path}; it is made again")
    return manifest
