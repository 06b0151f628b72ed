# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's workers with rejuvenated weights: mixins for the actor and reference worker, and for the critic's.

A worker class is sent to the nodes by value, with the `Start` as an attribute.
"""

from functools import partial
from typing import Any

from verl.single_controller.base.decorator import Dispatch, register
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from ..workers import extended
from .beginning import Beginning
from .start import Start


class _Starts:
    rejuvenation_start: Start
    _beginning: Beginning

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def rejuvenation_report(self) -> dict[str, Any]:
        """See `Beginning.report`."""
        return self._beginning.report()


class ActorStart(_Starts):
    """Placed before an `ActorRolloutRefWorker`, with ``rejuvenation_start``."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        self._beginning = Beginning(self.rejuvenation_start)
        # Instance attributes hide the class attributes that verl's init_model calls.
        ref = "ref" if self.rejuvenation_start.ref == "rejuvenated" else None
        self.actor_worker_cls = partial(self._beginning.worker, self.actor_worker_cls, "actor")
        self.ref_worker_cls = partial(self._beginning.worker, self.ref_worker_cls, ref)
        super().init_model()  # type: ignore[misc]


class CriticStart(_Starts):
    """Placed before the critic's `TrainingWorker`, with ``rejuvenation_start``.

    verl makes the critic first. So it prepares, also where it keeps its own weights: neurons are found before any model
    takes the device's memory.
    """

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def reset(self) -> None:
        self._beginning = Beginning(self.rejuvenation_start)
        self._beginning.watch(self.engine, "critic" if self.rejuvenation_start.critic else None)  # type: ignore[attr-defined]
        super().reset()  # type: ignore[misc]


def with_start(role_worker_mapping: dict[Any, Any], start: Start) -> dict[Any, Any]:
    """The mapping with every actor, reference and critic worker class extended.

    Args:
        role_worker_mapping: verl's ``role -> Ray actor class``; not changed.
        start: what they start from.
    """
    mixins = {ActorRolloutRefWorker: ActorStart, TrainingWorker: CriticStart}
    return extended(role_worker_mapping, mixins, rejuvenation_start=start)
