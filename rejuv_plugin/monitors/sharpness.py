# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How curved the probe set's loss is along the update that a step of RL made."""

from abc import abstractmethod
from collections.abc import Mapping
from math import isfinite
from typing import ClassVar

import torch
from torch import Tensor

from ..ops.sharpness import CriticalStep
from .metric import Metric
from .monitor import Monitor, Sums, Values

DOUBLINGS = 10
"""Of the update's own length, until the search is given up."""
_FARTHEST = 2**DOUBLINGS

_COST = (
    "8 to 17 forward passes over the probe set; each rank's share of the weights on the host from the step's first "
    "update on, twice while it is looked at (once under Megatron in 16 bits)"
)
_LOSS = "mean NLL over the response tokens of the probe set"
_SOURCE = "arXiv 2601.16979, relative critical sharpness: one loss along the update of another"


class SharpnessMonitor(Monitor):
    """What to make of a search by `ops.sharpness.critical_step`; a subclass runs it.

    Args:
        every: steps between two searches.
    """

    name: ClassVar[str] = "sharpness"
    catalogue: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "probe/critical_sharpness",
            "2 over the learning rate at which the step's update would begin to raise the probe set's NLL",
            f"1 / learning rate, > 0; an upper bound where critical_step is {_FARTHEST}; left out where that is 0",
            "no threshold is known; below 2 / learning rate the update was no step too far",
            _COST,
            _LOSS,
            _SOURCE,
        ),
        Metric(
            "probe/critical_step",
            "how many times its own length the step's update can go until the probe set's NLL is higher than before it",
            f"updates, 0 to {_FARTHEST}: 0 where the NLL rises at once, {_FARTHEST} where even that does not raise it",
            "no threshold is known; below 1 the step raised the NLL; 0 is no cause for alarm if the probe set's "
            "responses are not what RL rewards",
            _COST,
            _LOSS,
            _SOURCE,
        ),
    )
    early = True

    def __init__(self, every: int = 1) -> None:
        self.every = every

    @abstractmethod
    def sums(self) -> Sums: ...

    def told(self, found: CriticalStep | None, rate: float) -> Sums:
        """Sums of what one rank has to tell for all.

        Args:
            found: None: nothing.
            rate: learning rate of the step's updates, above 0.
        """
        step = [found.step, found.sharpness(rate), 1.0] if found else [0.0, 0.0, 0.0]
        return {"critical": torch.tensor(step, dtype=torch.float64)}

    def values(self, sums: Mapping[str, Tensor]) -> Values:
        step, sharpness, known = sums["critical"].tolist()
        found = {"probe/critical_step": step, "probe/critical_sharpness": sharpness} if known else {}
        return Values({name: value for name, value in found.items() if isfinite(value)})
