# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's workers with rejuvenated weights: mixins for the actor and reference worker, and for the critic's.

A worker class is sent to the nodes by value, with the `Start` as an attribute.
"""

import time
from functools import partial
from typing import Any

import ray
import torch
import torch.distributed as dist
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils.device import get_device_name
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from ....checkpoint import Plan
from ....loading import not_read
from ....neurons.reset_set import ResetSet
from ..planning import RESET_KEY
from ..progress_lines import ProgressLines
from .engines import Loaded, load_rejuvenated
from .start import Start
from .together import all_or_none, gather, owned


class Beginning:
    """One process's part in the start of a job."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._plan: Plan | None = None
        self._chosen: ResetSet | None = None
        self._loaded: dict[str, Loaded] = {}
        self._search_seconds = 0.0

    def worker(self, worker_cls: Any, role: str, config: Any) -> Any:
        """A verl `TrainingWorker` whose engine will load rejuvenated weights.

        Args:
            worker_cls: verl's class, or the user's.
            role: ``actor``, ``ref`` or ``critic``, for the report.
            config: verl's own argument.
        """
        # Makes the process group and the engine, which loads nothing yet.
        worker = worker_cls(config=config)
        self.watch(worker.engine, role)
        return worker

    def watch(self, engine: Any, role: str) -> None:
        """Let ``engine`` load rejuvenated weights when it is initialised. All ranks call it, for the same roles."""
        if self._plan is None:
            self._plan = self._planned()
        self._loaded[role] = load_rejuvenated(engine, self._plan, dist.get_rank())

    def report(self) -> dict[str, Any]:
        """What was done, for the trainer. A collective.

        Returns:
            ``drift`` of the tensors that no lower rank has read, by name; ``set``, the neurons that were reset, from
            rank 0; ``seconds`` by role of building and loading; ``search_seconds``.

        Raises:
            NotRead: no rank has read any: the loader reads in a way that does not give it rejuvenated weights.
        """
        assert self._plan is not None, "no engine was initialised"
        drift = {name: both for loaded in self._loaded.values() for name, both in loaded.drift.items()}
        if not any(gather(bool(drift))):
            raise not_read("weights")
        mine = owned([operation.name for operation in self._plan.fused], drift.keys())
        return {
            "drift": {name: drift[name] for name in mine},
            "set": self._chosen if dist.get_rank() == 0 else None,
            "seconds": {role: loaded.seconds for role, loaded in self._loaded.items()},
            "search_seconds": self._search_seconds,
        }

    def _planned(self) -> Plan:
        start = self._start
        with all_or_none("reading the checkpoints"):
            plan = start.plan()
        self._chosen = start.chosen
        if start.search:
            from ....probe.measure import measure_sharded

            began = time.monotonic()
            self._chosen = measure_sharded(
                plan,
                start.search.settings,
                start.search.examples,
                start.search.digests,
                RESET_KEY,
                torch.device(get_device_name(), torch.cuda.current_device())
                if get_device_name() == "cuda"
                else torch.device(get_device_name()),
                ProgressLines() if dist.get_rank() == 0 else None,
            )
            self._search_seconds = time.monotonic() - began
        with all_or_none("planning the reset"):
            return start.with_reset(plan, self._chosen)


class ActorStart:
    """Placed before an `ActorRolloutRefWorker`, with ``rejuvenation_start``."""

    rejuvenation_start: Start

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        self._beginning = Beginning(self.rejuvenation_start)
        # Instance attributes hide the class attributes that verl's init_model calls.
        self.actor_worker_cls = partial(self._beginning.worker, self.actor_worker_cls, "actor")
        if self.rejuvenation_start.ref == "rejuvenated":
            self.ref_worker_cls = partial(self._beginning.worker, self.ref_worker_cls, "ref")
        super().init_model()  # type: ignore[misc]

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def rejuvenation_report(self) -> dict[str, Any]:
        """See `Beginning.report`."""
        return self._beginning.report()


class CriticStart:
    """Placed before the critic's `TrainingWorker`, with ``rejuvenation_start``."""

    rejuvenation_start: Start

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def reset(self) -> None:
        Beginning(self.rejuvenation_start).watch(self.engine, "critic")  # type: ignore[attr-defined]
        super().reset()  # type: ignore[misc]


def with_start(role_worker_mapping: dict[Any, Any], start: Start, critic: bool) -> dict[Any, Any]:
    """The mapping with every actor and reference worker class extended, and on request the critic's.

    Args:
        role_worker_mapping: verl's ``role -> Ray actor class``; not changed.
        start: what they start from.
        critic: whether the critic does, too.
    """
    return {role: _extended(actor_class, start, critic) for role, actor_class in role_worker_mapping.items()}


def _extended(actor_class: Any, start: Start, critic: bool) -> Any:
    worker = actor_class.__ray_actor_class__  # the user's class under Ray's wrapper, as verl unwraps it too
    mixin = ActorStart if issubclass(worker, ActorRolloutRefWorker) else CriticStart
    if mixin is CriticStart and not (critic and issubclass(worker, TrainingWorker)):
        return actor_class
    # The module is not where the class could be found again, so it travels by value.
    attributes = {"__module__": __name__, "rejuvenation_start": start}
    return ray.remote(type(worker.__name__, (mixin, worker), attributes))
