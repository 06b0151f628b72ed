# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The plan of a rejuvenation: every operation, known from headers alone, so that each error comes before any work."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from ..config import FusionConfig
from ..errors import InputError, not_readable
from ..neurons.reset_set import ResetSet
from .adapter import CONFIG, Adapter, LowRank, is_adapter, merged_side_files, read_adapter
from .compatible import check_compatible, check_fused_once, twins
from .headers import FLOATING, TensorInfo
from .layout import Checkpoint, read_checkpoint
from .patterns import alpha_of_each, chosen_tensors, key_of
from .perturb import Perturbation, perturbation
from .source import locate


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
    alpha: float
    """Weight of SFT, in [0, 1]."""
    perturbed: Perturbation | None = None
    """None: nothing but the interpolation."""
    reset: Slices | None = None
    """The part that is reset: written with `Reset.omega` of the base."""
    added: LowRank | None = None
    """SFT is the base and this; ``sft`` then says where the output's tensor lies, and nothing else."""
    replaced: TensorInfo | None = None
    """SFT is this tensor of an adapter; ``sft`` as above."""

    @cached_property
    def common(self) -> int:
        """Elements that both sides have, the first ones; what only the SFT checkpoint has is kept."""
        return min(self.sft.elements, self.base.elements)


@dataclass(frozen=True)
class Copy:
    """Write the SFT tensor as it is."""

    name: str
    sft: TensorInfo
    why: str
    """``not floating-point``, so not a weight (a mask, position ids); ``only in SFT`` (a value head); ``left out`` by
    the settings; ``not in the adapter``."""


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
    adapter: Adapter | None = None
    """None: ``sft`` is a full checkpoint."""

    @cached_property
    def twins(self) -> Mapping[str, str]:
        """See `compatible.twins`."""
        return twins(self.layout)

    @property
    def layout(self) -> Checkpoint:
        """The checkpoint whose files and headers the output has."""
        return self.base if self.adapter else self.sft

    def of_file(self, file: str) -> Iterator[Fuse | Copy]:
        """The operations that fill one weight file, in the order of its bytes."""
        return (operation for operation in self.operations if operation.sft.file == file)

    @property
    def fused(self) -> tuple[Fuse, ...]:
        return tuple(operation for operation in self.operations if isinstance(operation, Fuse))

    @property
    def alphas(self) -> dict[float, int]:
        """The alphas of the fused tensors, ascending, and how many tensors have each."""
        return dict(sorted(Counter(operation.alpha for operation in self.fused).items()))

    @property
    def copied(self) -> tuple[Copy, ...]:
        return tuple(operation for operation in self.operations if isinstance(operation, Copy))

    @property
    def parameters_fused(self) -> int:
        """Elements of all fused tensors; tied embeddings count as often as they are stored."""
        return sum(operation.common for operation in self.fused)

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
        if self.adapter:
            return merged_side_files(self.base, self.sft)
        return {name: self.sft.root / name for name in self.sft.side_files}

    @property
    def sft_paths(self) -> Mapping[str, Path]:
        """What the SFT side of the inputs is: its weight files and the side files, by name."""
        config = (CONFIG,) if self.adapter else ()
        return {name: self.sft.root / name for name in (*self.sft.headers, *config)} | dict(self.side_files)

    @property
    def input_paths(self) -> tuple[Path, ...]:
        """All files that the output's bytes depend on."""
        return (*(self.base.root / file for file in self.base.headers), *self.sft_paths.values())


def plan_fusion(
    base: str,
    sft: str,
    fusion: FusionConfig,
    *,
    base_key: str = "--base",
    sft_key: str = "--sft",
    fusion_key: str = "--",
) -> Plan:
    """Plan the fusion of two checkpoints. Reads headers and JSON files, no weights; writes nothing.

    Args:
        base: directory or hub name of the model that the SFT checkpoint started from.
        sft: directory or hub name of the SFT checkpoint.
        fusion: the settings.
        base_key: how errors name ``base``: a command-line option or a configuration key.
        sft_key: how errors name ``sft``.
        fusion_key: how errors name the settings: what comes before a setting's name.

    Raises:
        InputError: a checkpoint is missing, damaged, a pickle or quantised, or the two are not states of one model.
    """
    _check_method(fusion, fusion_key)
    ours = read_checkpoint(base, base_key)
    root = locate(sft, sft_key)
    if is_adapter(root):
        theirs, adapter = read_adapter(sft, root, sft_key, ours)
        return _readable(Plan(ours, theirs, fusion, _of_adapter(ours, adapter, fusion, fusion_key), adapter=adapter))
    theirs = read_checkpoint(sft, sft_key)
    check_fused_once(ours, theirs, fusion.alpha)
    partners = check_compatible(ours, theirs, fusion.grown_vocabulary, key_of(fusion_key, "grown_vocabulary"))
    tied = twins(theirs)
    chosen = chosen_tensors(fusion, theirs, tied, fusion_key)
    common = {name: info for name, info in theirs.tensors.items() if info.dtype in FLOATING and name in partners}
    free = [name for name, info in common.items() if name in chosen and not _stays(info, fusion.towards == "zero")]
    alphas = alpha_of_each(free, fusion, tied, fusion_key)
    perturbed = perturbation(fusion, theirs, fusion_key)
    operations: list[Fuse | Copy] = []
    for name, info in theirs.tensors.items():
        if info.dtype not in FLOATING:
            operations.append(Copy(name, info, "not floating-point"))
        elif name not in partners:
            operations.append(Copy(name, info, "only in SFT"))
        elif name not in chosen:
            operations.append(Copy(name, info, "left out"))
        else:
            alpha = alphas.get(name, fusion.alpha)
            operations.append(_fuse(name, info, ours.tensors[partners[name]], alpha, perturbed))
    return _readable(Plan(ours, theirs, fusion, tuple(operations)))


def _check_method(fusion: FusionConfig, key: str) -> None:
    if fusion.method != "linear" and find_spec("mergekit") is None:
        raise InputError(
            key_of(key, "method"),
            f"mergekit, for {fusion.method}",
            "an environment without it",
            "pip install 'rejuv-plugin[merge]'",
        )


def _readable(plan: Plan) -> Plan:
    """``plan``, whose side files can be read: weight files have been opened for their headers."""
    for path in plan.side_files.values():
        if not os.access(path, os.R_OK):
            raise not_readable(plan.sft.key, path)
    return plan


def at_alpha(plan: Plan, alpha: float) -> Plan:
    """The plan that `plan_fusion` makes of the same settings with another ``alpha``, without reading anything again; a
    reset stays."""
    fusion = replace(plan.fusion, alpha=alpha)
    alphas = alpha_of_each([operation.name for operation in plan.fused], fusion, {}, "--")
    operations = (
        replace(operation, alpha=_alpha_of(operation.sft, alphas[operation.name], fusion.towards == "zero"))
        if isinstance(operation, Fuse)
        else operation
        for operation in plan.operations
    )
    return replace(plan, fusion=fusion, operations=tuple(operations))


def _fuse(name: str, sft: TensorInfo, base: TensorInfo, alpha: float, perturbed: Perturbation | None) -> Fuse:
    alpha = _alpha_of(sft, alpha, bool(perturbed and perturbed.towards_zero))
    return Fuse(name, sft, base, alpha, perturbed if len(sft.shape) >= 2 else None)


def _alpha_of(sft: TensorInfo, alpha: float, towards_zero: bool) -> float:
    return 1.0 if _stays(sft, towards_zero) else alpha


def _stays(sft: TensorInfo, towards_zero: bool) -> bool:
    # Norms and biases are few, and their scale means something: they are neither shrunk to zero nor perturbed.
    return towards_zero and len(sft.shape) < 2


def _of_adapter(base: Checkpoint, adapter: Adapter, fusion: FusionConfig, key: str) -> tuple[Fuse | Copy, ...]:
    if (fusion.only_tensors, fusion.exclude_tensors) != ("*", ""):
        # What they leave out keeps the SFT checkpoint's bits, and there is no such checkpoint.
        raise InputError(
            key_of(key, "exclude_tensors" if fusion.exclude_tensors else "only_tensors"),
            "no patterns with a LoRA adapter",
            "some",
            "leave them out",
        )
    if setting := fusion.alternative:
        # These change all matrices, those too that an adapter leaves alone, or look at whole ones.
        raise InputError(
            key_of(key, setting), "nothing but fusion with a LoRA adapter", "another method", "merge the adapter first"
        )
    alphas = alpha_of_each([*adapter.added, *adapter.replaced], fusion, {}, key)
    operations: list[Fuse | Copy] = []
    for name, info in base.tensors.items():
        if name in adapter.added:
            operations.append(Fuse(name, info, info, alphas[name], added=adapter.added[name]))
        elif name in adapter.replaced:
            operations.append(Fuse(name, info, info, alphas[name], replaced=adapter.replaced[name]))
        else:
            operations.append(Copy(name, info, "not in the adapter"))
    return tuple(operations)
