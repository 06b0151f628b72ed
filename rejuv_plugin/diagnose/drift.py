# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How far the weights of a ladder of checkpoints moved, where, how sparsely, and in which direction: read from the
files piece by piece, without a model."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite, nan, sqrt
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint.compatible import EMBEDDINGS, check_compatible
from ..checkpoint.elements import read_elements
from ..checkpoint.headers import FLOATING, TensorInfo
from ..checkpoint.layout import Checkpoint
from ..monitors.layers import within_layer
from ..ops.drift import Drift, drift
from ..ops.spikes import Magnitudes
from .found import Found, plain

# Elements of each checkpoint in memory at a time, 8 MiB in float64.
_PIECE = 1 << 20
_OUTSIDE = "whole"
_DISTANCES = "drift", "drift_spikes", "drift_changed"

Place = tuple[str, str]
"""Row and column of the heat map: layer and kind of module, or what lies outside the layers and ``whole``."""


def weights_of(base: Checkpoint, sft: Checkpoint) -> dict[str, TensorInfo]:
    """The floating-point tensors of an SFT checkpoint by the name that each has in the base, but for those that the
    base lacks. Of grown embeddings only the rows count that both have.

    Raises:
        InputError: see `checkpoint.compatible`.
    """
    found: dict[str, TensorInfo] = {}
    for name, base_name in check_compatible(base, sft, "keep", "").items():
        if sft.tensors[name].dtype in FLOATING:
            found.setdefault(base_name, sft.tensors[name])
    return found


def moved(
    base: Checkpoint,
    steps: Sequence[Checkpoint],
    layers: int,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """The last checkpoint of a ladder against the base, and its last step against the one before.

    Args:
        base: the base.
        steps: up to three checkpoints of the ladder in a row, the base as its beginning included; the last one is
            measured.
        layers: decoder layers of the model.
        tick: called with the number of tensors done and of all.

    Returns:
        Without the numbers that NaN or infinity in a tensor spoils; `Found.not_measured` names the first such tensor.

    Raises:
        InputError: see `weights_of`.
        OSError: a file cannot be read.
    """
    named = [base.tensors if step is base else weights_of(base, step) for step in steps]
    drifts: dict[Place, Drift] = {}
    spikes: dict[Place, Magnitudes] = {}
    steps_taken: dict[Place, Tensor] = {}
    broken: dict[str, str] = {}
    names, chain = [name for name in named[-1] if all(name in of for of in named)], (base, *steps)
    for done, name in enumerate(names, 1):
        place = place_of(name)
        sizes = Magnitudes.none()
        sides = [(base.root, base.tensors[name]), *((s.root, of[name]) for s, of in zip(steps, named, strict=True))]
        for start, *values in _pieces(sides):
            _note_broken(broken, name, chain, (start, *values))
            change = values[-1] - start
            drifts[place] = drifts.get(place, Drift()) + drift(values[-1], start)
            sizes = sizes + Magnitudes.of(change)
            if len(values) == 3:
                last, before = values[2] - values[1], values[1] - values[0]
                sums = torch.stack([(last * before).sum(), last.square().sum(), before.square().sum()])
                steps_taken[place] = steps_taken.get(place, torch.zeros(3, dtype=torch.float64)) + sums
        # What was not trained at all, as most of a model is by LoRA on a few projections, is no sparse change.
        spikes[place] = spikes.get(place, Magnitudes.none()) + (sizes if sizes.changed else Magnitudes.none())
        tick(done, len(names))
    found = _found(drifts, spikes, steps_taken, layers)
    return replace(found, numbers=found.numbers | dict.fromkeys(broken), not_measured=broken)


def _note_broken(broken: dict[str, str], name: str, chain: Sequence[Checkpoint], values: Sequence[Tensor]) -> None:
    """Add to ``broken`` why there is no number, by its name, if values of ``chain`` (the base, then the steps) are not
    finite."""
    for i, (checkpoint, side) in enumerate(zip(chain, values, strict=True)):
        # In float64 the sum of what 16 or 32 bits can hold is finite where all of it is, and needs no second copy.
        if isfinite(side.sum().item()):
            continue
        # A checkpoint between the base and the last one has a part in the directions alone.
        spoilt = _DISTANCES if i in (0, len(chain) - 1) else ()
        for number in (*spoilt, *(["update_cosine"] if len(chain) == 4 and i > 0 else [])):
            broken.setdefault(number, f"NaN or infinity in {name} of {checkpoint.key} {checkpoint.given}")


def _pieces(sides: Sequence[tuple[Path, TensorInfo]]) -> Iterator[list[Tensor]]:
    """The elements that all sides of a tensor have, as float64."""
    count = min(info.elements for _, info in sides)
    for first in range(0, count, _PIECE):
        last = min(first + _PIECE, count)
        yield [read_elements(root / info.file, info, first, last).double() for root, info in sides]


def place_of(name: str) -> Place:
    """Where the heat map has a tensor: ``model.layers.3.mlp.up_proj.weight`` -> ``("3", "mlp.up_proj")``; all experts
    of a layer together; ``lm_head.weight`` -> ``("lm_head", "whole")``."""
    path = name.rpartition(".")[0] or name
    within = within_layer(path)
    if within is None:
        return path, _OUTSIDE
    return str(within[0]), re.sub(r"\.\d+(?=\.|$)", "", within[1])


def _found(
    drifts: Mapping[Place, Drift],
    spikes: Mapping[Place, Magnitudes],
    steps: Mapping[Place, Tensor],
    layers: int,
) -> Found:
    names = [str(i) for i in range(layers)]

    def by_layer(of: Callable[[str], float | None]) -> list[float]:
        return [nan if (value := of(name)) is None else value for name in names]

    def cosine(sums: Sequence[Tensor]) -> float | None:
        if not sums:
            return None
        both, last, before = torch.stack(list(sums)).sum(0).tolist()
        return both / sqrt(last * before) if last * before > 0 else None

    def of_row(values: Mapping[Place, object], row: str) -> list:
        return [value for (r, _), value in values.items() if r == row]

    sizes = sum(spikes.values(), Magnitudes.none())
    numbers = {
        "drift": plain(sum(drifts.values(), Drift()).relative),
        "drift_spikes": plain(sizes.top_share()),
        "drift_changed": plain(sizes.changed if sizes.counts.any() else None),
        "update_cosine": plain(cosine(list(steps.values()))),
    }
    by: dict[str, Sequence[float]] = {
        "drift": by_layer(lambda name: sum(of_row(drifts, name), Drift()).relative),
        "drift_spikes": by_layer(lambda name: sum(of_row(spikes, name), Magnitudes.none()).top_share()),
    }
    if steps:
        by["update_cosine"] = by_layer(lambda name: cosine(of_row(steps, name)))
    modules = {
        "drift": _grid(names, {place: found.relative for place, found in drifts.items()}),
        "drift_spikes": _grid(names, {place: found.top_share() for place, found in spikes.items()}),
    }
    return Found(numbers, by, modules)


def _grid(layers: Sequence[str], values: Mapping[Place, float | None]) -> dict:
    """Rows from the embeddings up, columns in the order that a layer stores them, ``whole`` last."""
    outside = [row for row, column in values if column == _OUTSIDE]
    first = [row for row in outside if row.rpartition(".")[2] in EMBEDDINGS]
    rows = [*first, *layers, *(row for row in outside if row not in first)]
    kinds = dict.fromkeys(column for _, column in values if column != _OUTSIDE)
    columns = [*kinds, *([_OUTSIDE] if outside else [])]
    return {"rows": rows, "columns": columns, "values": [[values.get((r, c)) for c in columns] for r in rows]}
