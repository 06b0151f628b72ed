# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Monitors that look at a pass of the model over the probe set. All of them look at the same one."""

from abc import abstractmethod
from typing import Protocol

from .monitor import Monitor, Sums


class Look(Protocol):
    """The pass of a step, which is run once. Both are collective over all ranks."""

    def ahead(self) -> None:
        """Run it now; raises nothing."""

    def __call__(self, name: str) -> None:
        """See to it that it was run, and that the monitor of this name saw it; raises what kept it from seeing."""


class ProbeSetMonitor(Monitor):
    """Args:
    look: see `Look`.
    every: steps between two passes.
    """

    def __init__(self, look: Look, every: int = 1) -> None:
        self._look, self.every = look, every
        self._held: Sums | None = None

    @property
    def _tally(self) -> Sums:
        # Made when the first hook runs and given away by `sums`: between two looks the device's memory is training's.
        if self._held is None:
            self._held = self.nothing()
        return self._held

    @abstractmethod
    def nothing(self) -> Sums:
        """Zeros, of the names and shapes that every rank has."""

    def forget(self) -> None:
        """Drop what was seen."""
        self._held = None

    def ahead(self) -> None:
        self._look.ahead()

    def sums(self) -> Sums:
        self._look(self.name)
        found, self._held = self._tally, None
        return found
