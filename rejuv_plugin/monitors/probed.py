# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Monitors that look at a pass of the model over the probe set. All of them look at the same one."""

from abc import abstractmethod
from collections.abc import Callable

from .monitor import Monitor, Sums

Look = Callable[[str], None]
"""Called with a monitor's name: sees to it that the pass of this step was run, and that this monitor saw it.
Raises what kept it from seeing. Collective over all ranks."""


class ProbeSetMonitor(Monitor):
    """Args:
    look: see `Look`.
    every: steps between two passes.
    """

    early = True
    is_off = False
    """No pass needs to look for it any more."""

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

    def turn_off(self) -> None:
        self.is_off = True
        self.forget()

    def sums(self) -> Sums:
        try:
            self._look(self.name)
            return self._tally
        finally:
            self.forget()
