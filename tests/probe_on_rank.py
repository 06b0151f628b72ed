# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The probe-set monitors of an engine, on a rank, with the hub's part played by one all_reduce."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from rejuv_plugin.config import MonitorProbeConfig, MonitorsConfig
from rejuv_plugin.monitors.monitor import Monitor
from rejuv_plugin.probe.dialogue import Example


def measured(engine: Any, examples: Sequence[Example], *, passes: int = 2, **config: Any) -> tuple[dict, dict]:
    """`Values.numbers` and `Values.layers` of all monitors, after a second pass: the first leaves nothing behind."""
    from rejuv_plugin.integrations.verl.monitors.probe_pass import probe_monitors

    monitors = probe_monitors(engine, examples, MonitorsConfig(**config))
    return [asked(monitors) for _ in range(passes)][-1]


def asked(monitors: Sequence[Monitor], step: int = 1) -> tuple[dict, dict]:
    """`Values.numbers` and `Values.layers` of all monitors that are due, together."""
    numbers, layers = {}, {}
    for monitor in [monitor for monitor in monitors if monitor.due(step)]:
        sums = monitor.sums()
        for tensor in sums.values():
            dist.all_reduce(tensor)
        values = monitor.values(sums)
        numbers |= values.numbers
        layers |= values.layers
    return numbers, layers


def outcomes(engine: Any, examples: Sequence[Example], passes: int) -> dict[str, str]:
    """By monitor, what it raised when it was first asked for its sums. Who raised is not asked again, as by the hub."""
    from rejuv_plugin.integrations.verl.monitors.probe_pass import probe_monitors

    monitors, found = probe_monitors(engine, examples, MonitorsConfig()), {}
    for _ in range(passes):
        for monitor in list(monitors):
            try:
                monitor.sums()
                found[monitor.name] = ""
            except Exception as error:
                found[monitor.name] = repr(error)
                monitors.remove(monitor)
    return found


def update(engine: Any, examples: Sequence[Example]) -> Any:
    """One optimizer step of SFT on the examples; what verl's engine says of it."""
    from verl.workers.utils.losses import sft_loss

    from rejuv_plugin.integrations.verl.monitors.probe_batch import batch_of

    options = {"use_remove_padding": engine.engine_config.use_remove_padding, "use_fused_kernels": False}
    rank, ranks = engine.get_data_parallel_rank(), engine.get_data_parallel_size()
    data, _ = batch_of(examples, rank, ranks, 1, options)
    with engine.train_mode():
        return engine.train_batch(data, loss_function=partial(sft_loss, None))


def trained(engine: Any, examples: Sequence[Example], probed: bool, exported: Callable[[Any], dict]) -> dict:
    """Weights after five steps, gradient norms and the random generator's state; with looks of all monitors between any
    steps, but of sharpness, which take a dozen passes, after two of them; and what numbers those gave."""
    from rejuv_plugin.integrations.verl.monitors.probe_pass import probe_monitors

    torch.manual_seed(0)
    norms, numbers = [], set()
    config = MonitorsConfig(probe_set=MonitorProbeConfig(every=1), sharpness=True)
    monitors = probe_monitors(engine, examples, config) if probed else []
    for monitor in monitors[-1:]:
        monitor.every = 4
    for number in range(1, 6):
        step = update(engine, examples)
        norms.append(step["metrics"]["grad_norm"] if engine.is_mp_src_rank_with_outputs() else None)
        numbers |= asked(monitors, number)[0].keys()
    return {"weights": exported(engine), "norms": norms, "random": torch.get_rng_state(), "numbers": numbers}


def sharpness(
    engine: Any, examples: Sequence[Example], updates: int, exported: Callable[[Any], dict]
) -> tuple[dict[str, float], list[dict]]:
    """What the monitor of sharpness says of a second step of so many updates, and whole weights before and after it,
    and after the look."""
    from rejuv_plugin.integrations.verl.monitors.probe_pass import probe_monitors

    others = dict.fromkeys(("probe", "neurons", "ranks", "attention"), False)
    monitors = probe_monitors(
        engine, examples, MonitorsConfig(sharpness=True, probe_set=MonitorProbeConfig(every=1), **others)
    )
    for step in (1, 2):
        weights = [exported(engine)]
        for _ in range(updates):
            update(engine, examples)
        weights.append(exported(engine))
        numbers, _ = asked(monitors, step)
        weights.append(exported(engine))
    return numbers, weights
