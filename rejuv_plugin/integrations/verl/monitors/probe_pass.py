# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""One pass of the policy over the probe set, that all probe-set monitors look at."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils.device import get_device_id
from verl.workers.utils.losses import sft_loss

from ....config import MonitorsConfig
from ....monitors.attention import AttentionMonitor
from ....monitors.likelihood import LikelihoodMonitor
from ....monitors.monitor import Monitor
from ....monitors.neurons import NeuronMonitor
from ....monitors.probed import ProbeSetMonitor
from ....monitors.representation import RankMonitor
from ....probe.dialogue import Example
from .engine import is_megatron
from .guarded import Guard
from .probe_batch import batch_of
from .sites import Hooks, Sites, Watched
from .unchanged import unchanged


def probe_monitors(engine: Any, examples: Sequence[Example], config: MonitorsConfig) -> list[Monitor]:
    """The probe-set monitors that are on. They share a pass: the first one that is asked for its sums runs it, on all
    ranks; each of the others hands out what it saw of it, once.

    Args:
        engine: verl's, FSDP1, FSDP2 or Megatron, initialised, with an optimizer.
        examples: from `probe.probe_set.read_probe_set`.
        config: which are on, and how often.
    """
    sites = _sites(engine)
    shape, device = sites.shape, torch.device(get_device_id())
    probe = ProbePass(engine, examples, sites, device)
    every = config.probe_set.every
    if config.probe:
        probe.add(LikelihoodMonitor(device, probe.look, every))
    if config.neurons:
        probe.add(NeuronMonitor(shape.layers, shape.width, device, probe.look, every))
    if config.ranks:
        probe.add(RankMonitor(shape.layers, shape.hidden, device, probe.look, every))
    if config.attention:
        probe.add(AttentionMonitor(shape.layers, device, probe.look, every))
    return list(probe.monitors.values())


def _sites(engine: Any) -> Sites:
    if is_megatron(engine):
        from .sites_megatron import MegatronSites

        return MegatronSites(engine)
    from .sites_fsdp import FsdpSites

    return FsdpSites(engine)


class ProbePass:
    """Args:
    engine: whose policy.
    examples: of the probe set.
    sites: of the engine.
    device: of the engine.
    """

    def __init__(self, engine: Any, examples: Sequence[Example], sites: Sites, device: torch.device) -> None:
        self._engine, self._sites, self._device = engine, sites, device
        self._examples = examples
        self._guards: dict[str, Guard] = {}
        self._unserved: set[str] = set()
        self._pass = Guard()
        self.monitors: dict[str, ProbeSetMonitor] = {}

    def add(self, monitor: ProbeSetMonitor) -> None:
        """Let a monitor look at the passes to come."""
        self.monitors[monitor.name], self._guards[monitor.name] = monitor, Guard()

    def look(self, name: str) -> None:
        """See `monitors.probed.Look`."""
        if name not in self._unserved:
            self._run()
        self._unserved.discard(name)
        self._pass.check()
        self._guards[name].check()

    def _run(self) -> None:
        # Who has not asked since the last pass never will: it was turned off, and with it the work done for it alone.
        for name in self._unserved:
            del self.monitors[name]
        for monitor in self.monitors.values():
            monitor.forget()
        self._unserved, self._pass = set(self.monitors), Guard()
        # What fails must reach all monitors, not only the one that happened to ask first.
        with self._pass:
            self._forward_backward()

    def _forward_backward(self) -> None:
        """Of the mean NLL of the response tokens, by verl's own engine and loss; the gradients are thrown away as verl
        does at the end of training. Without `neurons` nobody needs gradients."""
        engine, sites = self._engine, self._sites
        backward = "neurons" in self.monitors
        options = sites.options | {"calculate_entropy": "probe" in self.monitors}
        rank, ranks = engine.get_data_parallel_rank(), engine.get_data_parallel_size()
        data, marks = batch_of(self._examples, rank, ranks, sites.multiple, options)
        mode = engine.train_mode if backward else engine.eval_mode
        with mode(), unchanged(sites.modules, self._device), ExitStack() as stack:
            layouts = sites.layouts([micro.to(get_device_id()) for micro in marks])
            sites.watch(Hooks(layouts, stack), Watched(*map(self._watched, ("neurons", "ranks", "attention"))))
            if backward:
                engine.optimizer_zero_grad()
                engine.forward_backward_batch(data, self._loss, forward_only=False)
            else:
                engine.infer_batch(data, loss_function=self._loss)

    def _watched(self, name: str) -> Any:
        return (self.monitors[name], self._guards[name]) if name in self.monitors else None

    def _loss(self, model_output: dict[str, Tensor], data: TensorDict, dp_group: Any = None) -> Any:
        monitor = self.monitors.get("probe")
        if isinstance(monitor, LikelihoodMonitor) and self._engine.is_mp_src_rank_with_outputs():
            self._guards["probe"](_see)(monitor, model_output, data)
        return sft_loss(None, model_output, data, dp_group)


def _see(monitor: LikelihoodMonitor, model_output: dict[str, Tensor], data: TensorDict) -> None:
    # What is at a position is about the next token.
    said = torch.roll(data["loss_mask"].values(), -1).bool()
    log_probs, entropies = (model_output[name].detach().values()[said] for name in ("log_probs", "entropy"))
    monitor.saw(log_probs, entropies)
