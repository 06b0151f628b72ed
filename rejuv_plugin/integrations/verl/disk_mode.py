# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Disk mode: one new HF checkpoint before the job reads any model, then verl trains from that.

Works with every engine, rollout and LoRA, because for verl it is just another model path.
"""

from dataclasses import dataclass
from typing import Any

from omegaconf import open_dict
from verl.trainer.ppo.utils import need_reference_policy

from ...checkpoint import Materialised, Plan, materialise, plan_fusion
from . import run_record, tripwire
from .job import MODEL_PATH, Job
from .progress_lines import ProgressLines


@dataclass(frozen=True)
class Outcome:
    """What was done to the job."""

    key: str
    """Content key of the rejuvenated checkpoint."""
    ref: str
    """The setting ``rejuvenation.ref``."""
    metrics: dict[str, float]
    """The summary under verl's metric names, for the step that training starts from."""


def plan_of(job: Job) -> Plan:
    """Plan from headers alone; errors name verl's configuration keys."""
    return plan_fusion(
        str(job.settings.base_path),
        job.sft_path,
        job.settings.fusion,
        base_key="rejuvenation.base_path",
        sft_key=MODEL_PATH,
    )


def apply(job: Job, config: Any) -> Outcome:
    """Make the rejuvenated checkpoint, or find it in the cache, and point ``config`` at it, in place.

    Runs in the one process that builds the trainer. On resume the checkpoint comes from the cache (or is made again, to
    the same bits); the trained weights are then loaded over it by verl.

    Raises:
        InputError: bad input, or a resumed run that started from another checkpoint.
    """
    result = materialise(
        plan_of(job),
        job.cache_dir,
        key="rejuvenation.cache_dir",
        progress=ProgressLines(),
        approve=lambda key: run_record.check(config, key),
    )
    tripwire.disarm(config)
    _point_at(str(result.path), job, config)
    _print_summary(job, result, need_reference_policy(config))
    return Outcome(result.manifest["key"], job.settings.ref, _metrics(job, result))


def _point_at(path: str, job: Job, config: Any) -> None:
    with open_dict(config):
        config.actor_rollout_ref.model.path = path
        # Workers see only this part of the configuration.
        config.actor_rollout_ref.rejuvenation = {"sft_path": job.sft_path}
        if job.settings.critic:
            config.critic.model.path = path


def _metrics(job: Job, result: Materialised) -> dict[str, float]:
    drift = result.manifest["drift_from_base"]
    metrics = {
        "training/rejuvenation/alpha": job.settings.fusion.alpha,
        "training/rejuvenation/fused_parameters": result.manifest["parameters_fused"],
        "training/rejuvenation/drift_sft": drift["sft"]["relative_l2"],
        "training/rejuvenation/drift_start": drift["output"]["relative_l2"],
        "training/rejuvenation/from_cache": float(result.cached),
        "timing_s/rejuvenation_apply": result.seconds,
    }
    return {name: float(value) for name, value in metrics.items() if value is not None}


def _print_summary(job: Job, result: Materialised, has_reference: bool) -> None:
    drift = result.manifest["drift_from_base"]
    how = "found in the cache" if result.cached else "made"
    reference = job.settings.ref if has_reference else "none in this job"
    critic = "rejuvenated" if job.settings.critic else "its own path"
    print(
        f"rejuvenation: {how} in {result.seconds:.1f} s: {result.path}\n"
        f"  fusion alpha {job.settings.fusion.alpha:g} of {job.sft_path} with {job.settings.base_path}, "
        f"{result.manifest['parameters_fused']:,} parameters\n"
        f"  drift from base (relative L2): SFT {_shown(drift['sft'])}, start of RL {_shown(drift['output'])}\n"
        f"  KL reference: {reference}; critic: {critic}",
        flush=True,
    )


def _shown(drift: dict[str, Any]) -> str:
    value = drift["relative_l2"]
    return "not finite" if value is None else f"{value:.4g}"
