# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""One process's part in the start of a job: what its engines load, and what it tells the trainer."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from verl.utils.device import get_device_id, get_device_name

from ....checkpoint import Plan
from ....checkpoint.progress import ProgressLines
from ....loading import parts, tensor_of
from ....neurons.reset_set import ResetSet
from ....probe.measure import measure_sharded
from ....probe.ranks import Ranks, World, place
from ..job import MODEL_PATH
from ..planning import RESET_KEY, SET_KEY
from . import coverage
from .engines import Loaded, load_rejuvenated
from .start import Start


@dataclass(frozen=True)
class Prepared:
    """A start, with this node's files and the neurons."""

    start: Start
    plan: Plan
    ranks: Ranks
    search_seconds: float
    """0 if nothing had to be found."""


_prepared: Prepared | None = None
"""verl's roles (critic, actor, reference) live in one process, made one after the other. The first one prepares, while
there is no model yet; all others must start from the same neurons."""


def prepare(start: Start) -> Prepared:
    """What all roles of this process start from; found once. Collective, over the default process group.

    Raises:
        InputError: the same on every rank, with the rank that it is of: files that cannot be read or are not the
            trainer's, or as `measure_sharded`.
    """
    global _prepared
    if _prepared is None or _prepared.start != start:
        _prepared = _prepare(start)
    return _prepared


def _prepare(start: Start) -> Prepared:
    ranks = World(_device(), RESET_KEY)
    plan = ranks.own(start.plan, MODEL_PATH)
    chosen, seconds = start.chosen, 0.0
    if search := start.search:
        began = time.monotonic()
        progress = ProgressLines() if ranks.rank == 0 else None
        chosen = measure_sharded(plan, search.settings, search.examples, search.digests, RESET_KEY, _device(), progress)
        seconds = time.monotonic() - began
    plan = ranks.own(lambda: start.with_reset(plan, chosen), SET_KEY)
    return Prepared(start, plan, ranks, seconds)


def _device() -> torch.device:
    number = get_device_id()
    # Without an accelerator it is "cpu".
    return torch.device(number) if isinstance(number, str) else torch.device(get_device_name(), number)


class Beginning:
    """Of one worker."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._loaded: dict[str, Loaded] = {}

    def worker(self, worker_cls: Any, role: str | None, config: Any) -> Any:
        """A verl `TrainingWorker`, before it is initialised, when everything is prepared.

        Args:
            worker_cls: verl's class, or the user's.
            role: ``actor`` or ``ref``: its engine will load rejuvenated weights. None: it stays verl's own.
            config: verl's own argument.
        """
        # Makes the process group and the engine, which loads nothing yet.
        worker = worker_cls(config=config)
        self.watch(worker.engine, role)
        return worker

    def watch(self, engine: Any, role: str | None) -> None:
        """Prepare, and let ``engine`` load rejuvenated weights when it is initialised, if it has a ``role``."""
        ready = prepare(self._start)
        if role:
            self._loaded[role] = load_rejuvenated(engine, ready.plan, place(ready.ranks.rank, ready.ranks.size))

    def report(self) -> dict[str, Any]:
        """What was done, for the trainer. Collective.

        Returns:
            ``drift`` of what no lower rank has read, by tensor or expert, see `loading.parts`; ``unread``, the fused
            tensors that the models have no use for; ``digest`` of the neurons that are reset, None without; ``set``,
            these neurons, from rank 0; ``seconds``, the most of any role, of building and loading; ``search_seconds``.

        Raises:
            NotRead: a model was built of other weights.
        """
        ready = prepare(self._start)
        drift: dict[str, Any] = {}
        unread: list[str] = []
        for role, loaded in self._loaded.items():
            names = parts(ready.plan, loaded.apart)
            mine, unread = coverage.shared_out(ready.ranks, names, loaded.drift.keys())
            coverage.check(ready.plan, role, unread, loaded.tied)
            unread = list(dict.fromkeys(map(tensor_of, unread)))
            drift = {name: loaded.drift[name] for name in mine}
        chosen: ResetSet | None = ready.plan.reset.chosen if ready.plan.reset else None
        return {
            "drift": drift,
            "unread": unread,
            "digest": chosen.digest if chosen else None,
            "set": chosen if ready.ranks.rank == 0 else None,
            "seconds": max((loaded.seconds for loaded in self._loaded.values()), default=0.0),
            "search_seconds": ready.search_seconds,
        }
