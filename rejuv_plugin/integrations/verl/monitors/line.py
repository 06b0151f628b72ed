# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The model at any point of the straight line that a step's updates moved it along."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ....errors import InputError
from .weight_shards import Shard, shards


def copies(engine: Any) -> list[Tensor]:
    """What the optimizer holds now on this rank, on the host. To be called in a mode that has the optimizer loaded."""
    with torch.no_grad():
        return [shard.held.to("cpu", copy=True) for shard in shards(engine)]


class Line:
    """From the weights before the step's first update, at 0, to those that are there when this is made, at 1. All of
    it is local: who calls `go` or `back` goes on with `weight_shards.renew`, and in one mode of the engine.

    Args:
        engine: verl's, in a mode.
        before: by `copies`.

    Raises:
        InputError: as `shards`; weights of the model that are not the optimizer's in 16 bits: they could not be put
            back.
    """

    def __init__(self, engine: Any, before: Sequence[Tensor]) -> None:
        self._engine, self._before = engine, before
        now = shards(engine)
        for shard in now:
            # To the device first: what is on the host may still be on its way there, which the device knows.
            if shard.master is not None and not torch.equal(
                shard.read, shard.master.to(shard.read.device).to(shard.read.dtype)
            ):
                wanted = "false, where the model's weights are not the optimizer's, rounded"
                raise InputError("rejuvenation.monitors.sharpness", wanted, "true", "set it to false")
        # Masters stay as they are.
        self._now = [shard.read.to("cpu", copy=True) if shard.master is None else None for shard in now]
        self.moved = any(
            not torch.equal(shard.held, was.to(shard.held)) for shard, was in zip(now, before, strict=True)
        )
        """Whether the ends are not the same, on this rank."""

    def go(self, step: float) -> None:
        """Write the weights at ``step`` in place of this rank's, computed in float32; at 0 and 1 they are exact."""
        for shard, was, now in self._each():
            ends = (end.to(shard.read.device, torch.float32) for end in (was, now))
            shard.read.copy_(torch.lerp(*ends, step))

    def back(self) -> None:
        """Put this rank's weights back, bit by bit."""
        for shard, _, now in self._each():
            shard.read.copy_(now)

    def _each(self) -> Iterator[tuple[Shard, Tensor, Tensor]]:
        for shard, was, now in zip(shards(self._engine), self._before, self._now, strict=True):
            yield shard, was, shard.held if now is None else now
