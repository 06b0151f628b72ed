# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``rejuvenation.fusion.alpha=auto``: alpha is chosen before training, on the job's own prompts and reward function."""

import time
from dataclasses import replace
from typing import Any

from ...checkpoint import Plan, at_alpha
from ...checkpoint.progress import ProgressLines
from ...config import TuningConfig
from ...neurons.reset_set import ResetSet
from ...tune.data import Data
from . import probe_task, run_record
from .job import Job
from .planning import CACHE_KEY
from .planning import TUNE_KEY as KEY


def choose(job: Job, config: Any, plan: Plan, found: ResetSet | None) -> dict[str, Any]:
    """The choice: that of the run which is resumed, or of the cache, or found now in a Ray task of its own.

    Args:
        job: with ``tunes_on``.
        config: verl's configuration.
        plan: of the job, without the neurons of ``found``.
        found: neurons that were measured for it; all alphas are tried with them.

    Returns:
        ``choice`` of `tune.run.tune`, with ``seconds``: of the search, 0 if it is an older one's.

    Raises:
        InputError: as `tune.cache.tuned_once`.
    """
    kept = run_record.kept_choice(config)
    if kept is not None:
        print(f"rejuvenation: alpha {kept['alpha']:g}, as chosen when the run began", flush=True)
        return {**kept, "seconds": 0.0}
    assert job.tunes_on is not None
    settings, reset = probe_task.placed(job.settings.tune, job.trains_on, f"{KEY}device"), job.settings.reset
    choice, seconds = probe_task.run(
        search,
        plan,
        settings,
        job.tunes_on,
        job.cache_dir,
        {reset.ratio: found} if found else {},
        reset.omega,
        device=settings.device,
        device_key=f"{KEY}device",
    )
    print(f"rejuvenation: {choice['says']}\n  ({seconds:.1f} s, {job.cache_dir})", flush=True)
    return {**choice, "seconds": seconds}


def search(
    plan: Plan, settings: TuningConfig, data: Data, cache_dir: str, resets: dict[float, ResetSet], omega: float
) -> tuple[dict[str, Any], float]:
    """What the Ray task runs: the choice, and the seconds that finding it took."""
    from ...tune.cache import tuned_once
    from ...tune.question import question_of

    began = time.monotonic()
    question = replace(question_of(plan, settings, data, KEY), resets=resets, omega=omega)
    found = tuned_once(
        question,
        settings,
        cache_dir,
        cache_key=CACHE_KEY,
        fusion_alone=not resets,
        progress=ProgressLines(),
    )
    return found["choice"], time.monotonic() - began


def settled(job: Job, plan: Plan, choice: dict[str, Any]) -> tuple[Job, Plan]:
    """Job and plan with the alpha of ``choice``."""
    plan = at_alpha(plan, choice["alpha"])
    return replace(job, settings=replace(job.settings, fusion=plan.fusion)), plan
