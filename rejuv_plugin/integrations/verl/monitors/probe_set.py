# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The probe set of a verl job."""

from ....checkpoint import read_checkpoint
from ....checkpoint.adapter import is_adapter
from ....checkpoint.source import locate
from ....probe.dialogue import Example, read_examples
from ..job import MODEL_PATH, Job

_KEY = "rejuvenation.monitors.probe_set.data"


def probe_set_of(job: Job) -> list[Example]:
    """``monitors.probe_set.data``, else the calibration data, as the SFT checkpoint's tokenizer has it (of an adapter:
    its base's); empty without either, or if no monitor looks at it.

    Raises:
        InputError: as `read_examples`; so also for a model that transformers cannot read without its own code.
    """
    monitors, reset = job.settings.monitors, job.settings.reset
    data = monitors.probe_set.data or reset.calibration
    if not monitors.enabled or not data or not monitors.on_probe_set:
        return []
    if is_adapter(locate(job.sft_path, MODEL_PATH)):
        model = read_checkpoint(str(job.settings.base_path), "rejuvenation.base_path")
    else:
        model = read_checkpoint(job.sft_path, MODEL_PATH)
    most = monitors.probe_set.examples
    # The template may make several of a dialogue.
    return read_examples(model, data, monitors.probe_set.max_tokens, _KEY, most)[:most]
