# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Disk mode: one new HF checkpoint before the job reads any model, then verl trains from that.

Works with every engine, rollout and LoRA, because for verl it is just another model path.
"""

from dataclasses import dataclass
from typing import Any

from omegaconf import open_dict
from verl.trainer.ppo.utils import need_reference_policy

from ...checkpoint import Materialised, Plan, materialise, plan_fusion, plan_reset, reset_file
from ...errors import InputError
from ...probe.cache import Found, entropy_once, found_once
from ...probe.measure import check_inputs
from .. import ray_shards
from . import probe_task, run_record, tripwire
from .job import MODEL_PATH, Job
from .progress_lines import ProgressLines

_RESET_KEY = "rejuvenation.reset."
_SET_KEY = f"{_RESET_KEY}set_path"


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
    """Plan without reading weights; errors name verl's configuration keys.

    A reset set from a file is in the plan. Neurons that are still to be measured are not: calibration data and
    architecture are checked.
    """
    plan = plan_fusion(
        str(job.settings.base_path),
        job.sft_path,
        job.settings.fusion,
        base_key="rejuvenation.base_path",
        sft_key=MODEL_PATH,
        fusion_key="rejuvenation.fusion.",
    )
    reset = job.settings.reset
    if plan.adapter and reset.ratio:
        raise InputError(MODEL_PATH, "a full checkpoint to measure neurons in", "a LoRA adapter", "merge it first")
    if reset.set_path:
        return plan_reset(plan, reset_file.load(reset.set_path, _SET_KEY), reset.omega, _SET_KEY)
    if reset.wanted:
        check_inputs(plan, reset, _RESET_KEY)
        if not reset.calibration:
            job.prompts.check()
    return plan


def apply(job: Job, config: Any) -> Outcome:
    """Make the rejuvenated checkpoint, or find it in the cache, and point ``config`` at it, in place.

    Runs in the one process that builds the trainer. On resume the checkpoint comes from the cache (or is made again, to
    the same bits); the trained weights are then loaded over it by verl.

    Raises:
        InputError: bad input, or a resumed run that started from another checkpoint.
    """
    plan, found = plan_of(job), None
    if job.settings.reset.ratio:
        found = _find_neurons(plan, job)
        plan = plan_reset(plan, found.chosen, job.settings.reset.omega, f"{_RESET_KEY}calibration")
    result = materialise(
        plan,
        job.cache_dir,
        key="rejuvenation.cache_dir",
        progress=ProgressLines(),
        approve=lambda key: run_record.check(config, key),
        # Before any worker takes the nodes; the cache is on a disk that all of them see.
        shards=ray_shards.over_cluster() if ray_shards.nodes() > 1 else None,
    )
    tripwire.disarm(config)
    _point_at(str(result.path), job, config)
    entropy = _entropies(found, result, job) if found else {}
    _print_summary(job, result, entropy, need_reference_policy(config))
    return Outcome(result.manifest["key"], job.settings.ref, _metrics(job, result, entropy))


def _find_neurons(plan: Plan, job: Job) -> Found:
    settings = probe_task.placed(job.settings.reset, job.trains_on, f"{_RESET_KEY}device")
    return probe_task.run(
        found_once, plan, settings, job.cache_dir, job.prompts, progress=ProgressLines(), device=settings.device
    )


def _entropies(found: Found, result: Materialised, job: Job) -> dict[str, float]:
    """Mean token entropy in nats on the calibration data: of the base, the SFT checkpoint and the start of RL."""
    start = probe_task.run(
        entropy_once,
        result.path,
        found.settings,
        job.cache_dir,
        key=_RESET_KEY,
        cache_key="rejuvenation.cache_dir",
        progress=ProgressLines(),
        device=found.settings.device,
    )
    before = {side: values["mean"] for side, values in found.chosen.statistics["entropy"].items()}
    return before | {"start": start}


def _point_at(path: str, job: Job, config: Any) -> None:
    with open_dict(config):
        config.actor_rollout_ref.model.path = path
        # Workers see only this part of the configuration.
        config.actor_rollout_ref.rejuvenation = {"sft_path": job.sft_path}
        if job.settings.critic:
            config.critic.model.path = path


def _metrics(job: Job, result: Materialised, entropy: dict[str, float]) -> dict[str, float]:
    drift = result.manifest["drift_from_base"]
    metrics = {
        "training/rejuvenation/alpha": job.settings.fusion.alpha,
        "training/rejuvenation/fused_parameters": result.manifest["parameters_fused"],
        "training/rejuvenation/drift_sft": drift["sft"]["relative_l2"],
        "training/rejuvenation/drift_start": drift["output"]["relative_l2"],
        "training/rejuvenation/from_cache": float(result.cached),
        "timing_s/rejuvenation_apply": result.seconds,
    }
    if reset := result.manifest.get("reset"):
        metrics |= {
            "training/rejuvenation/omega": reset["omega"],
            "training/rejuvenation/reset_share": reset["share"],
            "training/rejuvenation/reset_neurons": reset["neurons"],
        }
    metrics |= {f"training/rejuvenation/entropy_{side}": value for side, value in entropy.items()}
    return {name: float(value) for name, value in metrics.items() if value is not None}


def _print_summary(job: Job, result: Materialised, entropy: dict[str, float], has_reference: bool) -> None:
    drift = result.manifest["drift_from_base"]
    reset = result.manifest.get("reset")
    neurons = (
        f"  reset of {reset['neurons']:,} neurons ({reset['share']:.2%}), omega {reset['omega']:g}\n" if reset else ""
    )
    if entropy:
        sides = "{base:.3f} base, {sft:.3f} SFT, {start:.3f} start of RL".format(**entropy)
        neurons += f"  token entropy on the calibration data (nats): {sides}\n"
    how = "found in the cache" if result.cached else "made"
    reference = job.settings.ref if has_reference else "none in this job"
    critic = "rejuvenated" if job.settings.critic else "its own path"
    print(
        f"rejuvenation: {how} in {result.seconds:.1f} s: {result.path}\n"
        f"  fusion alpha {job.settings.fusion.alpha:g} of {job.sft_path} with {job.settings.base_path}, "
        f"{result.manifest['parameters_fused']:,} parameters\n"
        f"{neurons}"
        f"  drift from base (relative L2): SFT {_shown(drift['sft'])}, start of RL {_shown(drift['output'])}\n"
        f"  KL reference: {reference}; critic: {critic}",
        flush=True,
    )


def _shown(drift: dict[str, Any]) -> str:
    value = drift["relative_l2"]
    return "not finite" if value is None else f"{value:.4g}"
