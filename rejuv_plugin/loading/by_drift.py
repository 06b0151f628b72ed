# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Which parts of an SFT checkpoint moved furthest from the base: what an alpha by drift is made of."""

import math
from collections.abc import Mapping, Sequence

from ..checkpoint.compatible import layer_group
from ..checkpoint.plan import Plan
from ..checkpoint.progress import Progress
from ..ops.drift import Drift
from .values import Values


def drift_of_each(plan: Plan, workers: int = 1, progress: Progress | None = None) -> dict[str, Drift]:
    """How far each fused tensor of the SFT checkpoint is from the base, in the order of its files; of two tensors that
    are tied the input embedding alone.

    Reads both checkpoints once, piece by piece; memory is that of the largest tensor.

    Args:
        plan: of two full checkpoints.
        workers: threads. They change nothing but the time.
        progress: called with ``("hash", bytes done, bytes in all)``.

    Raises:
        InputError: named by the tensor; NaN or infinity in it.
        OSError: a file cannot be read.
    """
    sizes = {
        operation.name: operation.sft.end - operation.sft.start
        for operation in plan.fused
        if operation.name not in plan.twins
    }
    done, total = 0, sum(sizes.values())
    with Values(plan, workers) as values:
        for name, size in sizes.items():
            values.tensor(name)
            done += size
            if progress:
                progress("hash", done, total)
    return {name: moved for name, (moved, _) in values.drift.items()}


def by_layer(drifts: Mapping[str, Drift]) -> dict[str, Drift]:
    """The drift of each decoder layer, by a pattern of its tensors' names; what lies outside of layers is left out."""
    found: dict[str, Drift] = {}
    for name, drift in drifts.items():
        group = layer_group(name)
        if group.rpartition(".")[2].isdigit():
            found[f"{group}.*"] = found.get(f"{group}.*", Drift()) + drift
    return found


def furthest(drifts: Mapping[str, Drift], above: float) -> list[str]:
    """The names whose relative drift is above a quantile: a share ``1 - above`` of them, rounded up, furthest first.

    Args:
        drifts: by name.
        above: in [0, 1).
    """
    # (1 - 0.7) * 10 is a little more than 3.
    count = math.ceil((1.0 - above) * len(drifts) - 1e-9)
    return sorted(drifts, key=lambda name: drifts[name].relative, reverse=True)[:count]


def alpha_of(plan: Plan, names: Sequence[str], alpha: float) -> str:
    """The setting `FusionConfig.alpha_of` that gives ``alpha`` to ``names`` and to what is tied to them."""
    tied = [name for name, other in plan.twins.items() if other in names]
    return " ".join(f"{name}:{alpha}" for name in (*names, *tied))
