# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Plans of a verl job, in which errors name the keys of its configuration."""

from ...checkpoint import Plan, plan_fusion, plan_reset, reset_file
from ...config import FusionConfig
from ...errors import InputError
from ...probe.measure import check_inputs
from .job import BASE_PATH, MODEL_PATH, Job

CACHE_KEY = "rejuvenation.cache_dir"
RESET_KEY = "rejuvenation.reset."
TUNE_KEY = "rejuvenation.tune."
SET_KEY = f"{RESET_KEY}set_path"


def fusion_of(base_path: str, sft_path: str, fusion: FusionConfig) -> Plan:
    """`checkpoint.plan_fusion`."""
    return plan_fusion(
        base_path,
        sft_path,
        fusion,
        base_key=BASE_PATH,
        sft_key=MODEL_PATH,
        fusion_key="rejuvenation.fusion.",
    )


def plan_of(job: Job) -> Plan:
    """The plan, without reading weights.

    A reset set from a file is in the plan. Neurons that are still to be measured are not: calibration data and
    architecture are checked.

    Raises:
        InputError: bad input of any kind that headers, JSON files and calibration data show.
    """
    plan = fusion_of(str(job.settings.base_path), job.sft_path, job.settings.fusion)
    reset = job.settings.reset
    if plan.adapter and job.settings.mode == "worker":
        raise InputError(MODEL_PATH, "a full checkpoint", "a LoRA adapter", "set rejuvenation.mode=disk or merge it")
    if plan.adapter and reset.ratio:
        raise InputError(MODEL_PATH, "a full checkpoint to measure neurons in", "a LoRA adapter", "merge it first")
    if plan.adapter and job.settings.ref == "sft":
        # The reference's engine would be given the adapter's directory as its model.
        expected = "rejuvenated, with a LoRA adapter as the SFT checkpoint"
        raise InputError("rejuvenation.ref", expected, "'sft'", "merge the adapter into its base first")
    if plan.adapter and job.tunes_on:
        raise InputError(MODEL_PATH, "a full checkpoint to choose alpha for", "a LoRA adapter", "merge it first")
    if job.tunes_on:
        job.tunes_on.check(job.settings.tune, TUNE_KEY)
    if reset.set_path:
        return plan_reset(plan, reset_file.load(reset.set_path, SET_KEY), reset.omega, SET_KEY)
    if reset.wanted:
        check_inputs(plan, reset, RESET_KEY)
        if not reset.calibration:
            job.prompts.check()
    return plan
