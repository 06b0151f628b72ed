# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Headers of safetensors files: what the library writes is read, what lies is refused before it is believed."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rejuv_plugin.checkpoint.headers import read_header
from rejuv_plugin.errors import InputError

WRITTEN_DTYPES = (
    "float64 float32 float16 bfloat16 complex64 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool "
    "float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu"
)


def write_raw(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def tensor(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_a_file_of_the_library(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2, 3), "b": torch.ones((), dtype=torch.bfloat16), "none": torch.ones(0, 5)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    header = read_header(tmp_path / "x.safetensors", "--sft")
    content = (tmp_path / "x.safetensors").read_bytes()
    assert content.startswith(header.prefix)
    assert header.size == len(content)
    assert {name: info.shape for name, info in header.tensors.items()} == {"a": (2, 3), "b": (), "none": (0, 5)}
    a = header.tensors["a"]
    assert torch.frombuffer(bytearray(content[a.start : a.end]), dtype=torch.float32).eq(1).all()
    assert (a.dtype, a.elements, header.tensors["b"].dtype) == ("F32", 6, "BF16")


@pytest.mark.parametrize(
    ("header", "data", "length", "says"),
    [
        (b"", b"", 10**12, "plausible length"),
        (b"", b"", 1, "plausible length"),
        (b"not json", b"", None, "not JSON"),
        (b"[" * 100_000, b"", None, "not JSON"),
        ([], b"", None, "not a JSON object"),
        (b'{"a": 1, "a": 2}', b"", None, "not JSON"),
        ({"a": 1}, b"", None, "without dtype"),
        ({"a": {"dtype": "F32", "shape": [2]}}, b"", None, "without dtype"),
        ({"a": tensor(offsets=[0, 8, 16])}, b"", None, "without dtype"),
        ({"a": tensor("F33")}, bytes(8), None, "unknown dtype 'F33'"),
        ({"a": tensor(shape=[-2], offsets=[0, 8])}, bytes(8), None, "natural numbers"),
        ({"a": tensor(shape=[2.0])}, bytes(8), None, "natural numbers"),
        ({"a": tensor(shape=[3])}, bytes(8), None, "8 bytes for shape (3,) of F32"),
        ({"a": tensor(), "b": tensor(offsets=[4, 12])}, bytes(12), None, "overlap before tensor 'b'"),
        ({"a": tensor(), "b": tensor(offsets=[12, 20])}, bytes(20), None, "gap or an overlap before tensor 'b'"),
        ({"a": tensor()}, bytes(7), None, "cut short"),
        ({"a": tensor()}, bytes(9), None, "9 bytes"),
    ],
)
def test_damage_is_named(tmp_path: Path, header: object, data: bytes, length: int | None, says: str) -> None:
    file = write_raw(tmp_path / "x.safetensors", header, data, length)
    with pytest.raises(InputError) as caught:
        read_header(file, "--sft")
    says = f"{file.stat().st_size} bytes" if says == "9 bytes" else says
    assert str(caught.value).startswith("--sft: ")
    assert says in str(caught.value)
    assert str(file) in str(caught.value)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n")
    with pytest.raises(InputError, match="git lfs pull"):
        read_header(file, "--base")
    file.write_bytes(b"")
    with pytest.raises(InputError, match="plausible length"):
        read_header(file, "--base")
    with pytest.raises(InputError, match="No such file"):
        read_header(tmp_path / "gone.safetensors", "--base")


@pytest.mark.parametrize("dtype", WRITTEN_DTYPES.split())
def test_every_dtype_that_the_library_writes_is_known(tmp_path: Path, dtype: str) -> None:
    save_file({"a": torch.zeros(4, dtype=getattr(torch, dtype))}, tmp_path / "x.safetensors")
    assert read_header(tmp_path / "x.safetensors", "--sft").tensors["a"].elements == 4
