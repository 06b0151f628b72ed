# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face checkpoint directory as a record, read from headers and JSON files alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..errors import InputError, not_readable
from .headers import Header, TensorInfo, read_header
from .refused import no_safetensors, refuse_quantised
from .small_file import read_json
from .source import locate

MANIFEST = "rejuvenation.json"
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
# What loaders of a model read, code that config.json's auto_map names included: it is copied, never run. Anything else
# beside it (a log, an evaluation, a README) must not make it another checkpoint, so it is neither copied nor hashed.
_SIDE_FILES = (
    *("config.json", "generation_config.json", _INDEX, "*.py"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "*.model", "*.tiktoken", "tekken.json"),
    *("*.jinja", "chat_template.json"),
    # Of images, video and sound: preprocessor_config.json, video_preprocessor_config.json and their kin.
    *("*processor_config.json", "feature_extractor_config.json"),
)
_RESAVE = "save or download this checkpoint again"


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a checkpoint before any weight is read."""

    key: str
    """The option or configuration key that it was given by: how errors name it."""
    given: str
    """The value of that key: a path or a hub name."""
    root: Path
    """The directory, absolute, no symbolic links."""
    label: str
    """A short name for people: the last part of the hub name or of the directory."""
    headers: Mapping[str, Header]
    """Header of each weight file, by file name, sorted."""
    tensors: Mapping[str, TensorInfo]
    """All tensors by name, in the order of the files and of the bytes in them."""
    config: Mapping[str, Any]
    """config.json."""
    side_files: tuple[str, ...]
    """Everything that belongs to the model and is not weights, by a list of known names; sorted, below the root."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor."""
        return {name: info.shape for name, info in self.tensors.items()}


def read_checkpoint(given: str, key: str) -> Checkpoint:
    """Read and check the checkpoint ``given``, a directory or a hub name.

    Raises:
        InputError: named ``key``; not found, no safetensors, damaged, quantised, or an index that does not fit.
    """
    root = locate(given, key)
    config = read_object(root / "config.json", key)
    indexed = (root / _INDEX).is_file()
    if not indexed and not (root / _SINGLE).is_file():
        raise no_safetensors(root, key)
    weight_map = _weight_map(root, key) if indexed else None
    files = sorted(set(weight_map.values())) if weight_map is not None else [_SINGLE]
    if (root / _SINGLE).is_file() and _SINGLE not in files:
        raise InputError(
            key, f"{_SINGLE} or {_INDEX}", f"{root}, which has both", "remove the one that is stale: loaders disagree"
        )
    headers = {file: read_header(root / file, key) for file in files}
    tensors = _merge(headers, weight_map, key)
    refuse_quantised(config, tensors, key)
    # A hub name lies in a directory named by a commit hash, which tells nobody which model it is.
    label = root.name if Path(given).expanduser().is_dir() else given.rpartition("/")[2]
    return Checkpoint(key, given, root, label, headers, tensors, config, side_files(root, key))


def _weight_map(root: Path, key: str) -> dict[str, str]:
    weight_map = read_object(root / _INDEX, key).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(key, f"a weight_map in {_INDEX}", "none", _RESAVE)
    for name, file in weight_map.items():
        # A plain name only: an index from elsewhere must not make us read, or name our output, outside its directory.
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise InputError(
                key, f"{_INDEX} to name safetensors files of its own directory", f"{file!r} for {name}", _RESAVE
            )
        if not _is_file(root / file):
            raise InputError(key, f"the file {file} that {_INDEX} names for {name}", "no such file", _RESAVE)
    return weight_map


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # A name that no file can have: too long.
        return False


def _merge(headers: Mapping[str, Header], weight_map: Mapping[str, str] | None, key: str) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for file, header in headers.items():
        for name, info in header.tensors.items():
            if name in tensors:
                raise InputError(key, "each tensor once", f"{name} in {tensors[name].file} and in {file}", _RESAVE)
            if weight_map is not None and weight_map.get(name) != file:
                raise InputError(
                    key, f"{_INDEX} to agree with the files", f"{name} in {file}, which the index does not say", _RESAVE
                )
            tensors[name] = info
    for name, file in (weight_map or {}).items():
        if name not in tensors:
            raise InputError(key, f"{name} in {file}, as {_INDEX} says", "a file without it", _RESAVE)
    return tensors


def side_files(root: Path, key: str) -> tuple[str, ...]:
    """Names of the files in a directory that belong to a model and are not weights, sorted."""
    # Sub-directories hold other formats and training state, except this one, where transformers keeps chat templates.
    entries = [*root.iterdir(), *root.glob("additional_chat_templates/*.jinja")]
    names = []
    for entry in entries:
        if not is_side_file(entry.name):
            continue
        if entry.is_symlink() and not entry.exists():
            raise InputError(key, f"the file {entry.name}", "a symbolic link to nothing", _RESAVE)
        if entry.is_file():
            names.append(entry.relative_to(root).as_posix())
    return tuple(sorted(names))


def is_side_file(name: str) -> bool:
    """Whether a file of this name belongs to a model and is not weights."""
    return any(fnmatchcase(name, pattern) for pattern in _SIDE_FILES)


def read_object(path: Path, key: str) -> dict[str, Any]:
    """A JSON object from a file, or `InputError` named ``key``."""
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise InputError(
            key, f"{path.name} in {path.parent}", "no such file", "give the directory of a Hugging Face checkpoint"
        ) from None
    except PermissionError:
        raise not_readable(key, path) from None
    except (OSError, ValueError) as error:
        raise InputError(key, f"{path} to be readable JSON", type(error).__name__, _RESAVE) from None
    if not isinstance(content, dict):
        raise InputError(key, f"{path} to be a JSON object", type(content).__name__, _RESAVE)
    return content
