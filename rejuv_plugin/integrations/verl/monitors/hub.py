# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""All monitors of one rank: asked together with those of the other ranks, and turned off together when one fails."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from ....monitors.monitor import Monitor, Sums, Values
from .guarded import Guard

Maker = Callable[[], Sequence[Monitor]]


@dataclass
class Report:
    """Of one step, the same on every rank, but for what only the first one has."""

    values: Values = field(default_factory=Values)
    """Of the first rank."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why a monitor is off from now on, by its name."""
    seconds: float = 0.0
    """That monitors took of this rank's training since the last report, beside what was asked for here."""


class Hub:
    """On each rank of the actor. `ahead` and `report` are collectives; a monitor that raises on one rank is off on all
    ranks from then on.

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
        self._ahead: Report | None = None
        self._seconds = 0.0
        self._monitors: dict[str, Monitor] = {}
        self._names = [name for names in makers for name in names]
        for names, make in makers.items():
            made = self._guarded(names, make)
            self._monitors |= dict(zip(names, made, strict=True)) if made else {}

    def ahead(self, step: int) -> None:
        """Measure what is to be measured while the rollout sleeps (`Monitor.early`), for the `report` of this step."""
        self._seconds += Guard.spent()
        self._ahead = self._collected(step, (True,))
        Guard.spent()  # who called knows how long this took

    def report(self, step: int) -> Report:
        """What was seen since the last call, over all ranks.

        Args:
            step: of RL, from 1.
        """
        ahead, self._ahead = self._ahead, None
        seconds, self._seconds = self._seconds + Guard.spent(), 0.0
        report = self._collected(step, (False,) if ahead else (False, True))
        if ahead:
            report.values.numbers.update(ahead.values.numbers)
            report.values.layers.update(ahead.values.layers)
            report.failed |= ahead.failed
        report.seconds = seconds
        Guard.spent()
        return report

    def _collected(self, step: int, when: Sequence[bool]) -> Report:
        """Of monitors whose ``early`` is in ``when``."""
        report = Report()
        # Before too: a monitor that one rank could not make must not start a collective on the others.
        on = self._agreed([name for name in self._names if name not in self._off], report)
        on = [name for name in on if self._monitors[name].early in when]
        sums = {name: self._guarded([name], partial(self._sums, name, step)) for name in on}
        on = self._agreed(on, report)
        for name in on:
            for part in sums[name].values():
                dist.all_reduce(part)
        # Eigenvalues take a while: once is enough. What raises here is agreed on first thing next time.
        for name in on if dist.get_rank() == 0 else ():
            found = sums.pop(name)
            values = self._guarded([name], partial(self._monitors[name].values, found)) if found else None
            if values:
                report.values.numbers.update(values.numbers)
                report.values.layers.update(values.layers)
        return report

    def _sums(self, name: str, step: int) -> Sums:
        """Ready to be added up in place, float64 where the process group adds: after the ranks have agreed nothing may
        fail on one alone, as for want of memory, while the others wait in a collective."""
        monitor = self._monitors[name]
        sums = monitor.sums() if monitor.due(step) else {}
        return {key: part.to(self._device, torch.float64).contiguous() for key, part in sums.items()}

    def _guarded(self, names: Sequence[str], call: Callable[[], Any]) -> Any:
        """What ``call`` gives; None, and the error kept by ``names``, if it raises: no monitor may end a job."""
        if any(name in self._error for name in names):
            return None
        try:
            return call()
        except Exception as error:
            self._error |= dict.fromkeys(names, f"{type(error).__name__}: {error}")
            # A guard may keep it, and with it what is in these frames.
            error.with_traceback(None)
            return None

    def _agreed(self, on: Sequence[str], report: Report) -> list[str]:
        """Those of ``on`` that have failed on no rank; the others get into ``report``."""
        if not on:
            return []
        fine = torch.tensor([name not in self._error for name in on], dtype=torch.int32, device=self._device)
        dist.all_reduce(fine, op=dist.ReduceOp.MIN)
        well = [name for name, ok in zip(on, fine.tolist(), strict=True) if ok]
        for name in on:
            if name not in well:
                report.failed[name] = self._reason(name)
                self._turn_off(name)
        return well

    def _turn_off(self, name: str) -> None:
        self._off.add(name)
        # One that this rank could not make is not there.
        if monitor := self._monitors.pop(name, None):
            with Guard():
                monitor.turn_off()

    def _reason(self, name: str) -> str:
        reasons: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(reasons, self._error.get(name))
        return next(f"rank {rank}: {reason}" for rank, reason in enumerate(reasons) if reason)
