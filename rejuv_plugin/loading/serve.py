# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""While a block runs, loaders that open the SFT checkpoint's weight files read the rejuvenated tensors in them.

All loaders that verl uses open a file with ``safetensors.safe_open``: transformers and mbridge by a name that they
imported, megatron-bridge by the package's own. That name is replaced in every module that has it while the block runs,
and put back in every module that has it then. A loader that reads another way would silently load the SFT checkpoint:
so callers compare `Values.drift`, which has what was read, with what they expect.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors
import torch

from .parts import is_stack
from .stack import Stack
from .values import Values


@contextmanager
def serving(values: Values, directory: str | Path) -> Iterator[None]:
    """Replace the tensors that are read from a directory's weight files by those of ``values``.

    For this process, not for one thread: nothing else may open that checkpoint meanwhile.

    Args:
        values: what is read instead; tensors that are not fused stay as they are in the file.
        directory: the SFT checkpoint, or a copy of it with the same file names.
    """
    roots = {Path(directory).resolve(), values.plan.sft.root}
    running = True

    def opened(path: Any, *args: Any, **kwargs: Any) -> Any:
        file = original(path, *args, **kwargs)
        # The directory's links are followed, not the file's: in a hub snapshot a file is a link to a nameless blob.
        place = Path(path)
        # Who has kept this function in another way than by that name.
        if not running or place.name not in values.plan.sft.headers or place.parent.resolve() not in roots:
            return file
        return _File(file, values, _device(args, kwargs))

    original = safetensors.safe_open
    try:
        _replace(original, opened)
        yield
    finally:
        running = False
        # Among them modules that were imported while the block ran, as mbridge does with its reader of DeepSeek-V3.
        _replace(opened, original)


def _replace(old: Any, new: Any) -> None:
    """Give the name ``safe_open`` another meaning in all modules where it is ``old``."""
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):
            # Not by the module's own way: some load what they are asked for, or all of themselves.
            names = object.__getattribute__(module, "__dict__")
            if names.get("safe_open") is old:
                names["safe_open"] = new


def _device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return kwargs.get("device", args[1] if len(args) > 1 else "cpu")


class _File:
    """What `safetensors.safe_open` returns, for one weight file.

    It has the methods that loaders use and no others: one that is missing here is an error, where passing it on would
    give the SFT checkpoint's values.
    """

    def __init__(self, file: Any, values: Values, device: Any) -> None:
        self._file, self._values, self._device = file, values, device

    def __enter__(self) -> "_File":
        self._file.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._file.__exit__(*raised)

    def keys(self) -> list[str]:
        return list(self._file.keys())

    def offset_keys(self) -> list[str]:
        return list(self._file.offset_keys())

    def metadata(self) -> dict[str, str] | None:
        return self._file.metadata()

    def get_tensor(self, name: str) -> torch.Tensor:
        if name not in self._values.fused:
            return self._file.get_tensor(name)
        if self._values.apart and is_stack(self._values.fused[name]) and torch.device(self._device).type == "cpu":
            return Stack(self._values, name)
        return self._values.tensor(name).to(self._device)

    def get_tensors(self) -> dict[str, torch.Tensor]:
        return {name: self.get_tensor(name) for name in self.keys()}

    def get_slice(self, name: str) -> Any:
        inner = self._file.get_slice(name)
        return _Slice(self, name, inner) if name in self._values.fused else inner


class _Slice:
    """What ``get_slice`` returns: nothing is read until it is indexed, then the whole tensor is made."""

    def __init__(self, file: _File, name: str, inner: Any) -> None:
        self._file, self._name, self._inner = file, name, inner

    def get_shape(self) -> list[int]:
        return self._inner.get_shape()

    def get_dtype(self) -> str:
        return self._inner.get_dtype()

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self._file.get_tensor(self._name)[index]
