# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Gradients of verl's engines before clipping, as each rank owns them."""

import functools
from typing import Any

import torch
import torch.distributed as dist

from ....monitors.gradients import GradientsMonitor
from ....monitors.monitor import Sums
from ..engine import number_of_layers
from .gradient_shards import owned, scale_of
from .guarded import Guard


def attach(engine: Any) -> GradientsMonitor:
    """Watch an actor's engine, FSDP or Megatron, at each optimizer step.

    Args:
        engine: verl's, initialised or not; ``optimizer_step`` of the instance is wrapped.
    """
    return _OfEngine(engine)


class _OfEngine(GradientsMonitor):
    def __init__(self, engine: Any) -> None:
        super().__init__(number_of_layers(engine), counts_steps=dist.get_rank() == 0)
        self._guard, self._off, step = Guard(), False, engine.optimizer_step

        @functools.wraps(step)
        def stepped(*args: Any, **kwargs: Any) -> Any:
            if not (self._off or self._guard.error):
                with self._guard, torch.no_grad():
                    self.add(owned(engine), scale_of(engine))
            return step(*args, **kwargs)

        engine.optimizer_step = stepped

    def turn_off(self) -> None:
        self._off = True

    def sums(self) -> Sums:
        sums = super().sums()
        self._guard.check()
        return sums
