# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The probe-set monitors of an engine, on a rank, with the hub's part played by one all_reduce."""

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist

from rejuv_plugin.config import MonitorsConfig
from rejuv_plugin.probe.dialogue import Example


def measured(engine: Any, examples: Sequence[Example], **config: Any) -> tuple[dict, dict]:
    """`Values.numbers` and `Values.layers` of all monitors, after a second pass: the first leaves nothing behind."""
    from rejuv_plugin.integrations.verl.monitors.probe_pass import probe_monitors

    monitors = probe_monitors(engine, examples, MonitorsConfig(**config))
    numbers, layers = {}, {}
    for _ in range(2):
        for monitor in monitors:
            sums = monitor.sums()
            for tensor in sums.values():
                dist.all_reduce(tensor)
            values = monitor.values(sums)
            numbers |= values.numbers
            layers |= values.layers
    return numbers, layers
