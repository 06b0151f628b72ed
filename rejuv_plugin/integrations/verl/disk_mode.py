# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Disk mode: one new HF checkpoint before the job reads any model, then verl trains from that.

Works with every engine, rollout and LoRA, because for verl it is just another model path.
"""

from typing import Any

from omegaconf import open_dict
from verl.trainer.ppo.utils import need_reference_policy

from ...checkpoint import Materialised, Plan, check_cache, materialise, plan_reset
from ...checkpoint.progress import ProgressLines
from ...errors import InputError
from ...probe.cache import Found, entropy_once, found_once
from ...report.apply import measured_on_another, not_finite
from .. import ray_shards, shared_disk
from . import kept_neurons, probe_task, run_record, tripwire, tuning
from .job import BASE_PATH, MODEL_PATH, Job
from .outcome import Outcome
from .planning import CACHE_KEY, RESET_KEY, plan_of
from .summary import Summary


def apply(job: Job, config: Any) -> Outcome:
    """Make the rejuvenated checkpoint, or find it in the cache, and point ``config`` at it, in place.

    Runs in the one process that builds the trainer. On resume the checkpoint comes from the cache (or is made again, to
    the same bits, with the alpha and the neurons that the run's own checkpoint has); the trained weights are then
    loaded over it by verl.

    Raises:
        InputError: bad input, a cache that not all nodes see, or a resumed run that started from another checkpoint.
    """
    plan, found, choice = plan_of(job), None, None
    if len(nodes := ray_shards.nodes()) > 1:
        # Before any work: workers there could not load what is made here.
        shared_disk.check_shared(job.cache_dir, nodes, CACHE_KEY)
    # Room, before the longer part of the work.
    check_cache(plan, job.cache_dir, CACHE_KEY)
    if job.settings.reset.ratio:
        found = _find_neurons(plan, job, config)
    if job.tunes_on:
        choice = tuning.choose(job, config, plan, found.chosen if found else None)
        job, plan = tuning.settled(job, plan, choice)
    if found:
        plan = plan_reset(plan, found.chosen, job.settings.reset.omega, f"{RESET_KEY}calibration")
    result = materialise(
        plan,
        job.cache_dir,
        key=CACHE_KEY,
        progress=ProgressLines(),
        approve=lambda key: run_record.check(config, key, job.settings.ref),
        # Before any worker takes the nodes; the cache is on a disk that all of them see.
        shards=ray_shards.over_cluster() if len(nodes) > 1 else None,
    )
    _check_manifest(result)
    tripwire.disarm(config)
    _point_at(str(result.path), job, config)
    entropy = _entropies(found, result, job) if found else {}
    how = "found in the cache" if result.cached else "made"
    summary = Summary(job, result.manifest, f"{how} in {result.seconds:.1f} s: {result.path}", entropy)
    summary.print(has_reference=need_reference_policy(config))
    metrics = summary.metrics | {
        "training/rejuvenation/from_cache": float(result.cached),
        "timing_s/rejuvenation_apply": result.seconds,
    }
    if choice:
        metrics["timing_s/rejuvenation_tune"] = choice["seconds"]
    return Outcome(
        result.manifest["key"], job.settings.ref, metrics, keep=found.chosen if found else None, tuned=choice
    )


def _check_manifest(result: Materialised) -> None:
    """`rejuv apply` writes such weights, as it is told; a job cannot train from them."""
    if where := not_finite(result.manifest):
        raise InputError(
            MODEL_PATH,
            f"finite weights in it and in {BASE_PATH}",
            f"NaN or infinity in {where}",
            "check both checkpoints: do they generate text?",
        )
    if warning := measured_on_another(result.manifest):
        print(f"rejuvenation: warning: {warning}", flush=True)


def _find_neurons(plan: Plan, job: Job, config: Any) -> Found:
    settings = probe_task.placed(job.settings.reset, job.trains_on, f"{RESET_KEY}device")
    if kept := kept_neurons.of_run(config, settings):
        print("rejuvenation: neurons as found when the run began", flush=True)
        return Found(kept, settings)
    return probe_task.run(
        found_once, plan, settings, job.cache_dir, job.prompts, progress=ProgressLines(), device=settings.device
    )


def _entropies(found: Found, result: Materialised, job: Job) -> dict[str, float]:
    """Mean token entropy in nats on the calibration data: of the base, the SFT checkpoint and the start of RL; not of
    the latter in a resumed run whose data were sampled."""
    before = {side: values["mean"] for side, values in found.chosen.statistics["entropy"].items()}
    if not found.settings.calibration:
        return before
    start = probe_task.run(
        entropy_once,
        result.path,
        found.settings,
        job.cache_dir,
        key=RESET_KEY,
        cache_key=CACHE_KEY,
        progress=ProgressLines(),
        device=found.settings.device,
    )
    return before | {"start": start}


def _point_at(path: str, job: Job, config: Any) -> None:
    with open_dict(config):
        config.actor_rollout_ref.model.path = path
        # Workers see only this part of the configuration.
        config.actor_rollout_ref.rejuvenation = {"sft_path": job.sft_path}
        if job.settings.critic:
            config.critic.model.path = path
