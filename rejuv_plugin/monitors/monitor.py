# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What every monitor of the workers is: sums on each rank, values from the sums over all of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import ClassVar

import numpy as np
from torch import Tensor

from .metric import QUANTILES, Metric

Sums = dict[str, Tensor]
"""Float64 tensors by name, to be added up over all ranks of the engine. Every rank has the same names and shapes at
every step; what only one rank knows, or replicas know too, is zero on all others."""


@dataclass(frozen=True)
class Values:
    """Of one step."""

    numbers: dict[str, float] = field(default_factory=dict)
    """By metric name. What could not be measured is left out, never a NaN."""
    layers: dict[str, list[float]] = field(default_factory=dict)
    """By metric name, one value a decoder layer, in order; NaN where a layer has none."""

    def flat(self, *, each: bool = False) -> dict[str, float]:
        """All numbers, and for each layered metric its quantiles over layers as ``<name>_layers/q05`` and so on.

        Args:
            each: every layer's value too, as ``<name>_layers/003``.
        """
        found = {name: value for name, value in self.numbers.items() if isfinite(value)}
        for name, values in self.layers.items():
            found |= {f"{name}_layers/{key}": value for key, value in quantiles(values).items()}
            if each:
                found |= {f"{name}_layers/{i:03}": value for i, value in enumerate(values) if isfinite(value)}
        return found


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Quantiles (linear interpolation) of the finite ones of ``values``; empty if there are none."""
    finite = [value for value in values if isfinite(value)]
    return {key: float(np.quantile(finite, q)) for key, q in QUANTILES.items()} if finite else {}


def is_due(step: int, every: int) -> bool:
    """Of what is measured every so many steps, from 1, the first one included."""
    return step == 1 or step % every == 0


class Monitor(ABC):
    """One switch of ``rejuvenation.monitors``, on one rank of the actor. Never changes what it looks at."""

    name: ClassVar[str]
    """Of the switch."""
    catalogue: ClassVar[tuple[Metric, ...]]
    """Every metric it gives."""
    every: int = 1
    """Steps between two measurements."""
    early: ClassVar[bool] = False
    """Measures before the new weights go to the rollout and wake it: it needs memory of the device, which is training's
    until then."""

    def due(self, step: int) -> bool:
        """Whether to measure at a step of RL, from 1: at the first one, and at multiples of `every`."""
        return is_due(step, self.every)

    @abstractmethod
    def sums(self) -> Sums:
        """This rank's part of what was seen since the last call, which is forgotten: tensors that share no memory and
        may be written to. All ranks call it at once."""

    def turn_off(self) -> None:  # noqa: B027  most hold next to nothing
        """Called once when it will not be asked again, on all ranks at once: let go of what is held."""

    @abstractmethod
    def values(self, sums: Mapping[str, Tensor]) -> Values:
        """Metrics from the sums over all ranks; they may be on any device. No collective: the first rank calls it."""
