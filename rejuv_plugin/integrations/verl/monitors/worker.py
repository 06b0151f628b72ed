# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's actor workers with monitors: a mixin that watches the actor's engine once it is built.

A worker class is sent to the nodes by value, with the `Watching` as an attribute.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from safetensors.torch import load_file, save_file
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils.device import get_device_name
from verl.workers.engine_workers import ActorRolloutRefWorker

from ....config import MonitorsConfig
from ....monitors.monitor import Monitor
from ....probe.dialogue import Example
from ..engine import check_known
from ..workers import extended
from . import gradients, tokens
from .hub import Hub, Maker, Report
from .probe_pass import probe_monitors
from .stream import StreamedWeights

STATE = "plasticity.safetensors"


@dataclass(frozen=True)
class Watching:
    """What the workers are told."""

    settings: MonitorsConfig
    base: Path | None
    """The base model's directory, as the trainer's node has it."""
    examples: tuple[Example, ...]
    """The probe set; empty: there is none."""


class MonitoredActor:
    """Placed before an `ActorRolloutRefWorker`, with ``plasticity_watching``."""

    plasticity_watching: Watching
    _hub: Hub | None = None
    _weights: StreamedWeights | None = None

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        super().init_model()  # type: ignore[misc]
        if self.actor is not None:  # type: ignore[attr-defined]
            makers = self._makers(self.actor.engine)  # type: ignore[attr-defined]
            self._hub = Hub(makers, get_device_name())

    def _makers(self, engine: Any) -> dict[tuple[str, ...], Maker]:
        settings = self.plasticity_watching.settings
        makers: dict[tuple[str, ...], Maker] = {}
        if self.plasticity_watching.examples:
            # Before the monitor of tokens, which ignores what runs between the step's update and its own turn.
            makers[settings.on_probe_set] = partial(probe_monitors, engine, self.plasticity_watching.examples, settings)
        if settings.tokens:
            makers["tokens",] = lambda: [tokens.attach(engine)]
        if settings.gradients:
            makers["gradients",] = lambda: [gradients.attach(engine)]
        if settings.weights:
            makers["weights",] = partial(self._watched_weights, engine)
        return {names: partial(_if_known, engine, make) for names, make in makers.items()}

    def _watched_weights(self, engine: Any) -> Sequence[Monitor]:
        watching = self.plasticity_watching
        self._weights = StreamedWeights(engine, watching.settings.sample, watching.base)
        return (self._weights,)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def plasticity_ahead(self, step: int) -> None:
        """See `Hub.ahead`."""
        if self._hub:
            self._hub.ahead(step)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def plasticity_report(self, step: int) -> Report | None:
        """See `Hub.report`; None but from the first rank, and from workers without an actor."""
        report = self._hub.report(step) if self._hub else None
        return report if dist.get_rank() == 0 else None

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def plasticity_save(self, folder: str) -> None:
        """Keep in a checkpoint's directory, which need not exist, what a resumed run must know of this one's start."""
        if self._weights and self._weights.here and (start := self._weights.start):
            Path(folder).mkdir(parents=True, exist_ok=True)
            save_file(start, Path(folder, STATE))

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def plasticity_load(self, folder: str) -> None:
        """Go on from what `plasticity_save` kept; without it, this run starts here."""
        path = Path(folder, STATE)
        if self._weights and self._weights.here and path.exists():
            self._weights.restore(load_file(path))


def _if_known(engine: Any, make: Maker) -> Sequence[Monitor]:
    check_known(engine)
    return make()


def with_monitors(role_worker_mapping: dict[Any, Any], watching: Watching) -> dict[Any, Any]:
    """The mapping with every actor's worker class extended; verl's ``role -> Ray actor class``, not changed."""
    return extended(role_worker_mapping, {ActorRolloutRefWorker: MonitoredActor}, plasticity_watching=watching)
