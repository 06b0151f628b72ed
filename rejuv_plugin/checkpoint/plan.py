# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The plan of a rejuvenation: every operation, known from headers alone, so that each error comes before any work."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..config import FusionConfig
from ..neurons.reset_set import ResetSet
from .compatible import check_compatible
from .headers import FLOATING, TensorInfo
from .layout import Checkpoint, read_checkpoint


@dataclass(frozen=True)
class Slices:
    """Rows or columns of one tensor."""

    dim: int
    """0: rows of a matrix or entries of a vector; 1: columns of a matrix."""
    indices: tuple[int, ...]
    """Ascending."""


@dataclass(frozen=True)
class Fuse:
    """Write ``alpha * sft + (1 - alpha) * base`` in the SFT tensor's dtype, at the SFT tensor's place."""

    name: str
    sft: TensorInfo
    base: TensorInfo
    reset: Slices | None = None
    """The part that is reset: written with `Reset.omega` of the base."""


@dataclass(frozen=True)
class Copy:
    """Write the SFT tensor as it is: not a floating-point tensor, so not a weight (a mask, position ids)."""

    name: str
    sft: TensorInfo


@dataclass(frozen=True)
class Reset:
    """What is reset, and how far."""

    omega: float
    """Weight of the base on the neurons of the set, in [0, 1]."""
    chosen: ResetSet


@dataclass(frozen=True)
class Plan:
    """What will be written. The output has the SFT checkpoint's files, tensors, order and dtypes."""

    base: Checkpoint
    sft: Checkpoint
    fusion: FusionConfig
    operations: tuple[Fuse | Copy, ...]
    """One per output tensor, in the order of the SFT checkpoint's files and of the bytes in them."""
    reset: Reset | None = None
    """None: fusion alone. Made by `reset.plan_reset`."""

    @property
    def layout(self) -> Checkpoint:
        """The checkpoint whose files and headers the output has."""
        return self.sft

    def of_file(self, file: str) -> Iterator[Fuse | Copy]:
        """The operations that fill one weight file, in the order of its bytes."""
        return (operation for operation in self.operations if operation.sft.file == file)

    @property
    def fused(self) -> tuple[Fuse, ...]:
        return tuple(operation for operation in self.operations if isinstance(operation, Fuse))

    @property
    def copied(self) -> tuple[Copy, ...]:
        return tuple(operation for operation in self.operations if isinstance(operation, Copy))

    @property
    def parameters_fused(self) -> int:
        """Elements of all fused tensors; tied embeddings count as often as they are stored."""
        return sum(operation.sft.elements for operation in self.fused)

    @property
    def parameters_reset(self) -> int:
        """Elements of all neurons in the reset set: each row or column, and the bias entries of rows."""
        slices = ((op.reset, op.sft) for op in self.fused if op.reset)
        return sum(len(part.indices) * info.elements // info.shape[part.dim] for part, info in slices)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weight files, headers included."""
        return sum(header.size for header in self.layout.headers.values())

    @property
    def output_bytes(self) -> int:
        """Bytes of everything that will be written, but for the manifest."""
        return self.weight_bytes + sum(path.stat().st_size for path in self.side_files.values())

    @property
    def side_files(self) -> Mapping[str, Path]:
        """What is copied byte for byte, by its name in the output: configuration, tokenizer, templates, code, index."""
        return {name: self.sft.root / name for name in self.sft.side_files}

    @property
    def input_paths(self) -> tuple[Path, ...]:
        """All files that the output's bytes depend on."""
        weights = (side.root / file for side in (self.base, self.sft) for file in side.headers)
        return (*weights, *self.side_files.values())


def plan_fusion(base: str, sft: str, fusion: FusionConfig, *, base_key: str = "--base", sft_key: str = "--sft") -> Plan:
    """Plan the fusion of two checkpoints. Reads headers and JSON files, no weights; writes nothing.

    Args:
        base: directory or hub name of the model that the SFT checkpoint started from.
        sft: directory or hub name of the SFT checkpoint.
        fusion: the settings.
        base_key: how errors name ``base``: a command-line option or a configuration key.
        sft_key: how errors name ``sft``.

    Raises:
        InputError: a checkpoint is missing, damaged, a pickle or quantised, or the two are not states of one model.
    """
    ours, theirs = read_checkpoint(base, base_key), read_checkpoint(sft, sft_key)
    partners = check_compatible(ours, theirs)
    operations = tuple(
        Fuse(name, info, ours.tensors[partners[name]]) if info.dtype in FLOATING else Copy(name, info)
        for name, info in theirs.tensors.items()
    )
    return Plan(ours, theirs, fusion, operations)
