# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""All monitors of one rank: asked together with those of the other ranks, and turned off together when one fails."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from ....monitors.monitor import Monitor, Sums, Values

Maker = Callable[[], Sequence[Monitor]]


@dataclass
class Report:
    """Of one step, the same on every rank, but for what only the first one has."""

    values: Values = field(default_factory=Values)
    """Of the first rank."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why a monitor is off from now on, by its name."""
    seconds: float = 0.0


class Hub:
    """On each rank of the actor. `report` is a collective; a monitor that raises is off on all ranks from then on.

    What cannot be caught: a rank that dies, or stays away from a collective that a monitor runs by itself.
    """

    def __init__(self, makers: Mapping[tuple[str, ...], Maker], device: torch.device | str) -> None:
        """
        Args:
            makers: what makes monitors, without a collective, by their names in order. The same on all ranks.
            device: where the process group adds up.
        """
        self._device = device
        self._error: dict[str, str] = {}
        self._off: set[str] = set()
        self._monitors: dict[str, Monitor] = {}
        self._names = [name for names in makers for name in names]
        for names, make in makers.items():
            made = self._guarded(names, make)
            self._monitors |= dict(zip(names, made, strict=True)) if made else {}

    def report(self, step: int) -> Report:
        """What was seen since the last call, over all ranks.

        Args:
            step: of RL, from 1. Monitors that look every n steps do so at the first one and at multiples of n.
        """
        began, report = time.perf_counter(), Report()
        on = [name for name in self._names if name not in self._off]
        sums = {name: self._guarded([name], partial(self._sums, name, step)) for name in on}
        for name in self._failed(on):
            report.failed[name] = self._reason(name)
            on.remove(name)
        together = self._added({(name, key): part for name in on for key, part in (sums[name] or {}).items()})
        self._off |= report.failed.keys()
        # Eigenvalues take a while: once is enough. What raises here is known to the other ranks at the next report.
        for name in on if dist.get_rank() == 0 else ():
            found = {key: part for (owner, key), part in together.items() if owner == name}
            values = self._guarded([name], partial(self._monitors[name].values, found)) if found else None
            if values:
                report.values.numbers.update(values.numbers)
                report.values.layers.update(values.layers)
        report.seconds = time.perf_counter() - began
        return report

    def _sums(self, name: str, step: int) -> Sums:
        monitor = self._monitors[name]
        return monitor.sums() if step == 1 or step % monitor.every == 0 else {}

    def _guarded(self, names: Sequence[str], call: Callable[[], Any]) -> Any:
        """What ``call`` gives; None, and the error kept by ``names``, if it raises: no monitor may end a job."""
        if any(name in self._error for name in names):
            return None
        try:
            return call()
        except Exception as error:
            self._error |= dict.fromkeys(names, f"{type(error).__name__}: {error}")
            return None

    def _failed(self, on: Sequence[str]) -> list[str]:
        """Those of ``on`` that have failed on any rank."""
        if not on:
            return []
        fine = torch.tensor([name not in self._error for name in on], dtype=torch.int32, device=self._device)
        dist.all_reduce(fine, op=dist.ReduceOp.MIN)
        return [name for name, ok in zip(on, fine.tolist(), strict=True) if not ok]

    def _reason(self, name: str) -> str:
        reasons: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(reasons, self._error.get(name))
        return next(f"rank {rank}: {reason}" for rank, reason in enumerate(reasons) if reason)

    def _added(self, parts: Mapping[Any, torch.Tensor]) -> dict[Any, torch.Tensor]:
        """Each tensor's sum over all ranks, float64 on the process group's device, in one collective."""
        if not parts:
            return {}
        flat = torch.cat([part.to(self._device, torch.float64).reshape(-1) for part in parts.values()])
        dist.all_reduce(flat)
        pieces = flat.split([part.numel() for part in parts.values()])
        return {key: piece.view(part.shape) for (key, part), piece in zip(parts.items(), pieces, strict=True)}
