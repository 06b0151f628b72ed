# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The probe-set monitors of an engine, on a rank, with the hub's part played by one all_reduce."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from rejuv_plugin.config import MonitorsConfig
from rejuv_plugin.probe.dialogue import Example


def measured(engine: Any, examples: Sequence[Example], *, passes: int = 2, **config: Any) -> tuple[dict, dict]:
    """`Values.numbers` and `Values.layers` of all monitors, after a second pass: the first leaves nothing behind."""
    from rejuv_plugin.integrations.verl.monitors.probe_pass import probe_monitors

    monitors = probe_monitors(engine, examples, MonitorsConfig(**config))
    numbers, layers = {}, {}
    for _ in range(passes):
        for monitor in monitors:
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


def trained(engine: Any, examples: Sequence[Example], probed: bool, exported: Callable[[Any], dict]) -> dict:
    """Weights after five steps, gradient norms and the random generator's state; with a pass between any steps."""
    from functools import partial

    from verl.workers.utils.losses import sft_loss

    from rejuv_plugin.integrations.verl.monitors.probe_batch import batch_of

    torch.manual_seed(0)
    options = {"use_remove_padding": engine.engine_config.use_remove_padding, "use_fused_kernels": False}
    rank, ranks = engine.get_data_parallel_rank(), engine.get_data_parallel_size()
    norms = []
    for _ in range(5):
        data, _ = batch_of(examples, rank, ranks, 1, options)
        with engine.train_mode():
            step = engine.train_batch(data, loss_function=partial(sft_loss, None))
        norms.append(step["metrics"]["grad_norm"] if engine.is_mp_src_rank_with_outputs() else None)
        if probed:
            measured(engine, examples, passes=1)
    return {"weights": exported(engine), "norms": norms, "random": torch.get_rng_state()}
