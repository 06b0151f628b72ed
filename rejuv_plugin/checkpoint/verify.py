# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a rejuvenated checkpoint is still what its manifest says, byte for byte."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..errors import InputError, not_readable
from .digest import digest_files
from .headers import Header, read_header
from .layout import MANIFEST, is_side_file
from .pieces import ALGORITHM
from .progress import Progress
from .small_file import read_json

# What makes a loader of transformers read other weights than these, or put some on top.
_LOADED = ("adapter_config.json",)
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_AGAIN = "make it again with this version"


def verify(directory: Path, key: str, progress: Progress | None = None) -> dict[str, str]:
    """Read every file that the manifest of ``directory`` names.

    Args:
        directory: a rejuvenated checkpoint.
        key: how errors name it.
        progress: called with ``("hash", bytes done, bytes in all)``.

    Returns:
        What is wrong, by file name; empty if nothing is.

    Raises:
        InputError: named ``key``; no manifest that can be read, or one of another version.
    """
    problems: dict[str, str] = {}
    files: dict[Path, Header | None] = {}
    expected = _expected(directory, key)
    for name, (_, size) in expected.items():
        path = directory / name
        try:
            found = path.stat().st_size
        except OSError as error:
            problems[name] = error.strerror or type(error).__name__
            continue
        if found != size:
            problems[name] = f"{found} bytes in place of {size}"
            continue
        try:
            files[path] = read_header(path, name) if name.endswith(".safetensors") else None
        except InputError as error:
            problems[name] = error.got
    digests = _digests(files, directory, problems, progress)
    problems |= {
        name: "other bytes" for name in expected if digests.get(directory / name, "") not in ("", expected[name][0])
    }
    for path in sorted(directory.iterdir()):
        if path.name not in expected and any(fnmatchcase(path.name, pattern) for pattern in _WEIGHTS):
            problems[path.name] = "weights that the manifest does not know"
        elif path.name not in expected and (is_side_file(path.name) or path.name in _LOADED):
            problems[path.name] = "a file that loaders read and the manifest does not know"
    return problems


def _digests(
    files: dict[Path, Header | None], directory: Path, problems: dict[str, str], progress: Progress | None
) -> dict[Path, str]:
    try:
        return digest_files(files, progress=progress)
    except OSError:
        # One of them cannot be read, as on a disk that fails: which one, and what of the others?
        found: dict[Path, str] = {}
        for path, header in files.items():
            try:
                found |= digest_files({path: header})
            except OSError as error:
                problems[path.relative_to(directory).as_posix()] = error.strerror or str(error)
        return found


def _expected(directory: Path, key: str) -> dict[str, tuple[str, int]]:
    try:
        record: dict[str, Any] = read_json(directory / MANIFEST)
        algorithm = record.get("digest")
        if algorithm == ALGORITHM:
            outputs = {name: (str(file["digest"]), int(file["size"])) for name, file in record["outputs"].items()}
    except FileNotFoundError:
        raise InputError(key, f"{MANIFEST} in {directory}", "no such file", "give a rejuvenated checkpoint") from None
    except PermissionError:
        raise not_readable(key, directory / MANIFEST) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(key, f"{directory / MANIFEST} to be readable", type(error).__name__, _AGAIN) from None
    if algorithm != ALGORITHM:
        raise InputError(key, f"digests of the kind {ALGORITHM}", repr(algorithm), _AGAIN)
    for name in outputs:
        # A manifest from elsewhere must not make us read outside of its directory.
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(key, "a manifest that names files of its own directory", repr(name), _AGAIN)
    return outputs
