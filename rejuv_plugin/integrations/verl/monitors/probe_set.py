# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The probe set of a verl job."""

from dataclasses import replace

from ....checkpoint import read_checkpoint
from ....checkpoint.adapter import is_adapter
from ....checkpoint.source import locate
from ....probe.dialogue import Example
from ....probe.load import load_config, load_tokenizer
from ....probe.probe_set import read_probe_set
from ..job import MODEL_PATH, Job


def probe_set_of(job: Job) -> list[Example]:
    """``monitors.probe_set.data``, else the calibration data, as the SFT checkpoint's tokenizer has it (of an adapter:
    its base's); empty without either, or if no monitor looks at it.

    Raises:
        InputError: `read_probe_set`; a model whose configuration transformers cannot read without its own code.
    """
    monitors, reset = job.settings.monitors, job.settings.reset
    data = monitors.probe_set.data or reset.calibration
    if not monitors.enabled or not data or not monitors.on_probe_set:
        return []
    if is_adapter(locate(job.sft_path, MODEL_PATH)):
        model = read_checkpoint(str(job.settings.base_path), "rejuvenation.base_path")
    else:
        model = read_checkpoint(job.sft_path, MODEL_PATH)
    return read_probe_set(replace(monitors.probe_set, data=data), load_tokenizer(model), load_config(model))
