# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The modules of one checkpoint whose neurons are scored and reset: names, shapes and places, no tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..errors import InputError
from .architectures import Config, Kind, Projection, architecture_of


@dataclass(frozen=True)
class Module:
    """One projection of one layer, or one part of a fused projection."""

    name: str
    """The path of the projection, and of a fused one the part: ``model.layers.0.self_attn.qkv_proj:k``."""
    path: str
    """The path of the `torch.nn.Module`."""
    layer: str
    """The path of the decoder layer: ``model.layers.0``."""
    kind: Kind
    start: int
    """The first row of the weight (and entry of the bias) that is this module's; 0 for columns."""
    count: int
    """Number of neurons."""
    has_bias: bool
    post_norm: str | None
    """The path of the RMSNorm between a column projection and the residual stream, if there is one."""

    @property
    def weight(self) -> str:
        return f"{self.path}.weight"

    @property
    def bias(self) -> str | None:
        return f"{self.path}.bias" if self.has_bias else None


def modules_of(config: Config, shapes: Mapping[str, tuple[int, ...]], key: str) -> tuple[Module, ...]:
    """Every module with neurons, layer by layer.

    Args:
        config: config.json.
        shapes: shape of each tensor by its name in the checkpoint.
        key: how errors name the checkpoint.

    Raises:
        InputError: named ``key``; an unknown architecture, or a checkpoint without the tensors that it says.
    """
    architecture = architecture_of(config, key)
    layers = [f"{architecture.layers}.{i}" for i in range(config.get("num_hidden_layers") or 0)]
    found = [m for layer in layers for p in architecture.projections for m in _modules(layer, p, config, shapes, key)]
    if not found:
        raise InputError(key, "num_hidden_layers in config.json", "none", "give the directory of a whole checkpoint")
    return tuple(found)


def _modules(
    layer: str, projection: Projection, config: Config, shapes: Mapping[str, tuple[int, ...]], key: str
) -> list[Module]:
    path = f"{layer}.{projection.path}"
    shape = shapes.get(f"{path}.weight", ())
    if len(shape) != 2:
        raise InputError(
            key,
            f"the matrix {path}.weight, as a {config.get('model_type')} has",
            f"shape {list(shape)}" if shape else "a checkpoint without it",
            "save the checkpoint again with transformers, or set the reset ratio to 0",
        )
    has_bias = f"{path}.bias" in shapes
    post_norm = f"{layer}.{projection.post_norm}" if projection.post_norm else None
    if not projection.parts:
        count = shape[0] if projection.kind == "row" else shape[1]
        return [Module(path, path, layer, projection.kind, 0, count, has_bias, post_norm)]
    sizes = [size(config) for _, size in projection.parts]
    if sum(sizes) != shape[0]:
        raise InputError(
            key,
            f"{sum(sizes)} rows in {path}.weight, by config.json",
            f"{shape[0]}",
            "give a checkpoint whose config.json is its own",
        )
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        Module(f"{path}:{part}", path, layer, projection.kind, start, size, has_bias, post_norm)
        for (part, _), start, size in zip(projection.parts, starts, sizes, strict=True)
    ]


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
