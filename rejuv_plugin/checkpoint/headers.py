# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The header of a safetensors file: read alone, bounded, and checked before anything trusts it.

Format: 8 bytes little-endian length, that many bytes of JSON, then the tensors' bytes without gaps.
https://huggingface.co/docs/safetensors/index#format
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import InputError, not_readable
from .small_file import parse_json

# The limit of the safetensors library itself: a larger length is a file that is not safetensors.
MAX_HEADER_BYTES = 100_000_000

TORCH_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Names in torch, which is not imported here, of the floating-point dtypes."""
FLOATING = frozenset(TORCH_DTYPES)
BITS = {
    **{"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "C64": 64},
    **{"I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8},
    **{"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8},
    **{"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: file name below the checkpoint's root, safetensors dtype, and absolute byte range."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int
    name: str = ""

    @cached_property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """One file: its first bytes as stored (length and JSON), its tensors in the order of their bytes, its size."""

    prefix: bytes
    tensors: Mapping[str, TensorInfo]
    size: int


class _Damaged(Exception):
    """What is wrong with a file, in words."""


def read_header(path: Path, key: str) -> Header:
    """Read and check the header of ``path``; no tensor byte is read.

    Raises:
        InputError: named ``key``; not a safetensors file, a damaged one, or a git-lfs pointer.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            prefix = file.read(8)
            if prefix == b"version ":
                raise _Damaged("is a git-lfs pointer, not the weights (run git lfs pull)")
            length = int.from_bytes(prefix, "little")
            if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise _Damaged(f"has no header of a plausible length in its {size} bytes")
            prefix += file.read(length)
        return Header(prefix, _parse(prefix[8:], path.name, 8 + length, size), size)
    except PermissionError:
        raise not_readable(key, path) from None
    except (_Damaged, OSError) as error:
        raise InputError(
            key,
            "a readable safetensors file",
            f"{path}, which {error}" if isinstance(error, _Damaged) else str(error),
            "download or save this checkpoint again",
        ) from None


def _parse(text: bytes, file: str, data_start: int, size: int) -> dict[str, TensorInfo]:
    try:
        entries = parse_json(text, _no_duplicates)
    except ValueError:
        raise _Damaged("has a header that is not JSON") from None
    if not isinstance(entries, dict):
        raise _Damaged("has a header that is not a JSON object")
    entries.pop("__metadata__", None)
    tensors = [(name, _tensor(name, entry, file, data_start)) for name, entry in entries.items()]
    tensors.sort(key=lambda item: (item[1].start, item[1].end))
    position = data_start
    for name, info in tensors:
        if info.start != position:
            raise _Damaged(f"has a gap or an overlap before tensor {name!r}")
        position = info.end
    if position != size:
        raise _Damaged(f"holds {size} bytes where its header describes {position} (cut short?)")
    return dict(tensors)


def _tensor(name: str, entry: Any, file: str, data_start: int) -> TensorInfo:
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise _Damaged(f"describes tensor {name!r} without dtype, shape and data_offsets") from None
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _Damaged(f"gives tensor {name!r} the unknown dtype {dtype!r}")
    if not all(type(n) is int and n >= 0 for n in (*shape, start, end)):
        raise _Damaged(f"gives tensor {name!r} a shape or offsets that are not natural numbers")
    if math.prod(shape) * BITS[dtype] != (end - start) * 8:
        raise _Damaged(f"gives tensor {name!r} {end - start} bytes for shape {shape} of {dtype}")
    return TensorInfo(file, dtype, shape, data_start + start, data_start + end, name)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)
