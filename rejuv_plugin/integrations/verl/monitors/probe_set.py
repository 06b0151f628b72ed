# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The probe set of a verl job."""

from dataclasses import replace
from pathlib import Path

from transformers import AutoConfig

from ....checkpoint import read_checkpoint
from ....probe.dialogue import Example
from ....probe.load import load_tokenizer
from ....probe.probe_set import read_probe_set
from ..job import MODEL_PATH, Job


def probe_set_of(job: Job) -> list[Example]:
    """``monitors.probe_set.data``, else the calibration data, as the SFT checkpoint's tokenizer has it; empty without
    either, or if no monitor looks at it.

    Raises:
        InputError: `read_probe_set`.
    """
    monitors, reset = job.settings.monitors, job.settings.reset
    data = monitors.probe_set.data or reset.calibration
    if not data or not any((monitors.probe, monitors.neurons, monitors.ranks, monitors.attention)):
        return []
    # An adapter has neither a configuration nor, often, a tokenizer of its own.
    if Path(job.sft_path, "adapter_config.json").exists():
        model = read_checkpoint(str(job.settings.base_path), "rejuvenation.base_path")
    else:
        model = read_checkpoint(job.sft_path, MODEL_PATH)
    config = AutoConfig.from_pretrained(model.root, trust_remote_code=False)
    return read_probe_set(replace(monitors.probe_set, data=data), load_tokenizer(model), config)
