# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The modules of one checkpoint whose neurons are scored and reset: names, shapes and places, no tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..errors import InputError
from .architectures import Config, Experts, Kind, Projection, architecture_of

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Module:
    """One projection of one layer, or one part of a fused projection."""

    name: str
    """The path of the projection, and of a fused one the part: ``model.layers.0.self_attn.qkv_proj:k``."""
    path: str
    """The path of the `torch.nn.Module`; of experts the one that holds all of a layer."""
    stored: str
    """The path of its tensors in the checkpoint."""
    layer: str
    """The path of the decoder layer: ``model.layers.0``."""
    kind: Kind
    start: int
    """The first row of the stored weight (and entry of the bias) that is this module's; 0 for columns."""
    count: int
    """Number of neurons."""
    has_bias: bool
    post_norm: str | None
    """The path of the RMSNorm between a column projection and the residual stream, if there is one."""
    offset: int
    """The first output of the `torch.nn.Module` that is this module's; 0 for columns."""
    expert: int | None = None
    """Which expert of a mixture."""

    @property
    def weight(self) -> str:
        return f"{self.stored}.weight"

    @property
    def bias(self) -> str | None:
        return f"{self.stored}.bias" if self.has_bias else None


def modules_of(config: Config, shapes: Shapes, key: str) -> tuple[Module, ...]:
    """Every module with neurons, layer by layer.

    Args:
        config: config.json.
        shapes: shape of each tensor by its name in the checkpoint.
        key: how errors name the checkpoint.

    Raises:
        InputError: named ``key``; an unknown architecture, or a checkpoint without the tensors that it says.
    """
    architecture = architecture_of(config, key)
    found = []
    for i in range(config.get("num_hidden_layers") or 0):
        layer = f"{architecture.layers}.{i}"
        projections, experts = architecture.projections, architecture.experts
        if experts and f"{layer}.{experts.stored}.0.{experts.gate}.weight" in shapes:
            found += _experts(layer, experts, config, shapes, key)
        elif experts:
            projections += experts.dense
        found += [m for projection in projections for m in _modules(layer, projection, config, shapes, key)]
    if not found:
        raise InputError(key, "num_hidden_layers in config.json", "none", "give the directory of a whole checkpoint")
    return tuple(found)


def _modules(layer: str, projection: Projection, config: Config, shapes: Shapes, key: str) -> list[Module]:
    path = f"{layer}.{projection.path}"
    rows, columns = _matrix(path, config, shapes, key)
    has_bias = f"{path}.bias" in shapes
    post_norm = f"{layer}.{projection.post_norm}" if projection.post_norm else None
    if not projection.parts:
        count = rows if projection.kind == "row" else columns
        return [Module(path, path, path, layer, projection.kind, 0, count, has_bias, post_norm, 0)]
    sizes = [size(config) for _, size in projection.parts]
    if sum(sizes) != rows:
        raise InputError(
            key,
            f"{sum(sizes)} rows in {path}.weight, by config.json",
            f"{rows}",
            "give a checkpoint whose config.json is its own",
        )
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        Module(f"{path}:{part}", path, path, layer, projection.kind, start, size, has_bias, post_norm, start)
        for (part, _), start, size in zip(projection.parts, starts, sizes, strict=True)
    ]


def _experts(layer: str, experts: Experts, config: Config, shapes: Shapes, key: str) -> list[Module]:
    found, path, number = [], f"{layer}.{experts.path}", 0
    while f"{layer}.{experts.stored}.{number}.{experts.gate}.weight" in shapes:
        prefix = f"{layer}.{experts.stored}.{number}"
        gate, up, down = (f"{prefix}.{part}" for part in (experts.gate, experts.up, experts.down))
        inner = _matrix(gate, config, shapes, key)[0]
        if (_matrix(up, config, shapes, key)[0], _matrix(down, config, shapes, key)[1]) != (inner, inner):
            raise InputError(key, f"{inner} neurons in {up} and {down}, as in {gate}", "others", "save it again")
        found += [
            Module(gate, path, gate, layer, "row", 0, inner, False, None, 0, number),
            Module(up, path, up, layer, "row", 0, inner, False, None, inner, number),
            Module(down, path, down, layer, "column", 0, inner, False, None, 0, number),
        ]
        number += 1
    return found


def _matrix(path: str, config: Config, shapes: Shapes, key: str) -> tuple[int, ...]:
    shape = shapes.get(f"{path}.weight", ())
    if len(shape) != 2:
        raise InputError(
            key,
            f"the matrix {path}.weight, as a {config.get('model_type')} has",
            f"shape {list(shape)}" if shape else "a checkpoint without it",
            "save the checkpoint again with transformers, or use fusion alone",
        )
    return shape


def chosen(modules: tuple[Module, ...], include: str, exclude: str, key: str) -> tuple[Module, ...]:
    """The modules whose name fits a pattern of ``include`` and none of ``exclude``.

    Args:
        modules: from `modules_of`.
        include: shell patterns on `Module.name`, separated by white space: ``*.k_proj *.v_proj``.
        exclude: the same.
        key: how errors name ``include``.

    Raises:
        InputError: named ``key``; nothing is left.
    """
    kept = tuple(m for m in modules if _fits(m.name, include) and not _fits(m.name, exclude))
    if not kept:
        raise InputError(
            key,
            f"patterns that fit some of {modules[0].name}, ...",
            f"{include!r} without {exclude!r}, which fit none",
            "use '*' and '' for all modules",
        )
    return kept


def _fits(name: str, patterns: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns.split())
