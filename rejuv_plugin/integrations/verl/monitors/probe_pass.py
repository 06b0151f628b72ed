# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""One pass of the policy over the probe set, that all probe-set monitors look at."""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils.device import get_device_id, get_device_name

from ....config import MonitorsConfig
from ....errors import InputError
from ....monitors.attention import AttentionMonitor
from ....monitors.likelihood import LikelihoodMonitor
from ....monitors.monitor import Monitor
from ....monitors.neurons import NeuronMonitor
from ....monitors.probed import ProbeSetMonitor
from ....monitors.representation import RankMonitor
from ....probe.dialogue import Example
from ..engine import is_megatron
from .guarded import Guard
from .probe_run import ProbeRun, of_responses
from .sharpness import OfEngine
from .sites import Sites, Watched
from .weight_shards import drop_gathered, recover


def probe_monitors(engine: Any, examples: Sequence[Example], config: MonitorsConfig) -> list[Monitor]:
    """The probe-set monitors that are on. They share a pass: the first one that is asked for its sums runs it, on all
    ranks; each of the others hands out what it saw of it, once. But `sharpness`, which comes last, runs its own.

    Args:
        engine: verl's, FSDP1, FSDP2 or Megatron, initialised, with an optimizer.
        examples: from `probe_set.probe_set_of`.
        config: which are on, and how often.
    """
    if "mrope_section" in _rotary(engine):
        raise InputError(
            "rejuvenation.monitors.probe_set.data",
            "null, with a model whose positions have three coordinates",
            type(engine.model_config.hf_config).__name__,
            "leave it out; the monitors of tokens, gradients and weights remain",
        )
    sites = _sites(engine)
    shape, device = sites.shape, torch.device(get_device_id())
    run = ProbeRun(engine, sites, examples, device)
    probe = ProbePass(run)
    every = config.probe_set.every
    if config.probe:
        probe.add(LikelihoodMonitor(device, probe.look, every))
    if config.neurons:
        probe.add(NeuronMonitor(shape.layers, shape.width, device, probe.look, every))
    if config.ranks:
        probe.add(RankMonitor(shape.layers, shape.hidden, device, probe.look, every))
    if config.attention:
        probe.add(AttentionMonitor(shape.layers, device, probe.look, every))
    return [*probe.monitors.values(), *([OfEngine(run, every)] if config.sharpness else [])]


def _rotary(engine: Any) -> dict:
    """Settings of the rotary embedding, under the name of transformers 5 or of 4."""
    config = engine.model_config.hf_config.get_text_config()
    return getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}


def _sites(engine: Any) -> Sites:
    if is_megatron(engine):
        from .sites_megatron import MegatronSites

        return MegatronSites(engine)
    from .sites_fsdp import FsdpSites

    return FsdpSites(engine)


class ProbePass:
    """Args:
    run: the probe set through the engine.
    """

    def __init__(self, run: ProbeRun) -> None:
        self._probe = run
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
        # Who was turned off, or has not asked since the last pass: the work done for it alone ends, too.
        for name in [name for name, each in self.monitors.items() if each.is_off or name in self._unserved]:
            self.monitors.pop(name).forget()
        for monitor in self.monitors.values():
            monitor.forget()
        self._unserved, self._pass = set(self.monitors), Guard()
        # What fails must reach all monitors, not only the one that happened to ask first.
        with self._pass:
            self._forward_backward()

    def _forward_backward(self) -> None:
        """The gradients are thrown away as verl does at the end of training. Without `neurons` nobody needs any."""
        engine = self._probe.engine
        backward = "neurons" in self.monitors
        watched = Watched(*map(self._watched, ("neurons", "ranks", "attention")))
        with _training(engine) if backward else engine.eval_mode():
            try:
                self._probe.run(self._outputs, watched, entropies="probe" in self.monitors, backward=backward)
            except Exception as error:
                _put_right(engine, error)
                raise
            if not backward:
                drop_gathered(engine)  # the rollout wants that memory next

    def _watched(self, name: str) -> Any:
        return (self.monitors[name], self._guards[name]) if name in self.monitors else None

    def _outputs(self, model_output: dict[str, Tensor], data: TensorDict) -> None:
        monitor = self.monitors.get("probe")
        if isinstance(monitor, LikelihoodMonitor):
            self._guards["probe"](_see)(monitor, model_output, data)


@contextmanager
def _training(engine: Any) -> Iterator[None]:
    """verl's mode for training, but that the optimizer's states stay where they are: where they are offloaded, that
    mode brings and takes 8 to 12 bytes a parameter, for an update that there is none of."""

    def move(device: str) -> None:
        if engine.is_param_offload_enabled:
            engine.to(device, model=True, optimizer=False, grad=True)

    move(get_device_name())
    try:
        with engine.train_mode(disable_auto_offload=True):
            yield
    finally:
        move("cpu")


def _put_right(engine: Any, error: Exception) -> None:
    """After a pass that ended half way with ``error``: else FSDP could neither stream its weights nor train.

    Raises:
        SystemExit: it cannot be done. Training on might be on other weights, and nobody would see it.
    """
    # torch 2.11 lets a checkpointed forward that raises wait, with its hooks on whatever autograd saves, until the last
    # frame that knows of it is gone: those that this error came through still do.
    traceback.clear_frames(error.__traceback__)
    try:
        recover(engine)
    except Exception as torn:
        raise SystemExit(
            f"rejuvenation: the look at the probe set failed ({error!r}), and FSDP of this version of torch cannot be "
            f"put right after it ({torn!r})"
        ) from error


def _see(monitor: LikelihoodMonitor, model_output: dict[str, Tensor], data: TensorDict) -> None:
    monitor.saw(*(of_responses(model_output[name], data) for name in ("log_probs", "entropy")))
