# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Where the values of a parameter lie in a checkpoint, and reading some rows of it and no others.

A parameter is stored as one tensor, under its own name or another. Where transformers 5 stacks the experts of a layer
it is several: ``gate_up_proj [E, 2I, H]`` is gate on top of up for each expert, ``down_proj [E, H, I]`` one for each.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from safetensors import safe_open
from torch import Tensor

from ...checkpoint.layout import Checkpoint
from ...errors import InputError
from ...neurons.architectures import Architecture, Experts


@dataclass(frozen=True)
class Stored:
    """Where one parameter is stored."""

    slices: tuple[tuple[str, ...], ...]
    """Names of tensors; those of one slice lie on top of each other."""
    stacked: bool
    """Whether slice e is ``parameter[e]``. Otherwise there is one slice, and it is the parameter."""


def find(names: Sequence[str], shape: Sequence[int], architecture: Architecture, checkpoint: Checkpoint) -> Stored:
    """Find a parameter in a checkpoint.

    Args:
        names: of the parameter in the model: of a tied one all.
        shape: its shape.
        architecture: the model's.
        checkpoint: its headers say what there is.

    Raises:
        InputError: named by the checkpoint's key; it is not there, or has another shape.
    """
    candidates = [place for name in names for place in _places(name, shape[0], architecture)]
    found = next((place for place in candidates if place.slices[0][0] in checkpoint.tensors), candidates[0])
    for tensors in found.slices:
        shapes = [checkpoint.shapes.get(tensor, ()) for tensor in tensors]
        wanted = tuple(shape[1:] if found.stacked else shape)
        if not all(shapes) or (sum(s[0] for s in shapes), *shapes[0][1:]) != wanted or len({s[1:] for s in shapes}) > 1:
            raise InputError(
                checkpoint.key,
                f"shape {list(wanted)} for {' with '.join(tensors)}, by config.json",
                " and ".join(str(list(s)) if s else "no such tensor" for s in shapes),
                "save the checkpoint again with transformers",
            )
    return found


def _places(name: str, experts: int, architecture: Architecture) -> Iterator[Stored]:
    """Where a parameter may be stored."""
    layer, rest = _split(name, architecture.layers)
    if architecture.experts and layer:
        yield from _of_mixture(layer, rest, experts, architecture.experts)
    yield Stored(((name,),), stacked=False)


def _of_mixture(layer: str, rest: str, count: int, experts: Experts) -> Iterator[Stored]:
    parts = {"gate_up_proj": (experts.gate, experts.up), "down_proj": (experts.down,)}
    path, _, last = rest.rpartition(".")
    if path == experts.path and last in parts:
        prefixes = [f"{layer}.{experts.stored}.{number}" for number in range(count)]
        yield Stored(tuple(tuple(f"{p}.{part}.weight" for part in parts[last]) for p in prefixes), stacked=True)
    # What lies beside the experts, the router, goes by the same parent's name.
    here, there = (place.rpartition(".")[0] for place in (experts.path, experts.stored))
    if rest.startswith(f"{here}."):
        yield Stored(((f"{layer}.{there}{rest.removeprefix(here)}",),), stacked=False)


def _split(name: str, layers: str) -> tuple[str, str]:
    """The path of the decoder layer and of the parameter below it; ``("", name)`` outside the layers."""
    if not name.startswith(f"{layers}."):
        return "", name
    number, _, rest = name.removeprefix(f"{layers}.").partition(".")
    return f"{layers}.{number}", rest


class Files:
    """The weight files of a checkpoint, each opened when it is first read, closed at the end of a ``with`` block."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint, self._stack = checkpoint, ExitStack()
        self._open: dict[str, Any] = {}

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def read(self, stored: Stored, dim: int, start: int, out: Tensor) -> None:
        """Fill ``out`` in place with rows of a parameter, cast to its dtype: exact from 16 bits to float32.

        Args:
            stored: from `find`.
            dim: the dimension of the parameter that is cut: 0, or 1 of a stacked one.
            start: the first row.
            out: as the parameter, but for the rows.
        """
        if not stored.stacked:
            self._rows(stored.slices[0], start, out)
        elif dim == 0:
            for number, part in enumerate(out, start):
                self._rows(stored.slices[number], 0, part)
        else:
            for names, part in zip(stored.slices, out, strict=True):
                self._rows(names, start, part)

    def _rows(self, names: Sequence[str], start: int, out: Tensor) -> None:
        """Rows from ``start`` on of tensors on top of each other."""
        top = 0
        for name in names:
            rows = self._checkpoint.tensors[name].shape[0]
            first, last = max(start, top), min(start + len(out), top + rows)
            if first < last:
                out[first - start : last - start] = self._slice(name)[first - top : last - top]
            top += rows

    def _slice(self, name: str) -> Any:
        file = self._checkpoint.tensors[name].file
        if file not in self._open:
            self._open[file] = self._stack.enter_context(safe_open(self._checkpoint.root / file, framework="pt"))
        return self._open[file].get_slice(name)
