# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Worker mode as the trainer sees it: what to tell the workers, and what they told."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import open_dict
from verl.trainer.ppo.utils import need_reference_policy

from ....checkpoint import Plan, is_hub_name, plan_reset, reset_file
from ....checkpoint.cache import check_place, make_directory, read_inputs_once
from ....checkpoint.compatible import layer_group
from ....checkpoint.progress import ProgressLines
from ....checkpoint.provenance import Inputs, content_key, manifest
from ....checkpoint.small_file import write_text
from ....checkpoint.stream import Shard
from ....loading import by_tensor
from ....neurons.reset_set import ResetSet
from ....ops.drift import Drift
from ....probe.cache import set_path
from ....probe.dialogue import examples_of
from ....probe.measure import input_digests
from .. import kept_neurons, run_record, tripwire
from ..job import Job, run_directory
from ..outcome import Outcome
from ..planning import CACHE_KEY, RESET_KEY, SET_KEY, plan_of
from ..summary import Summary
from .start import Search, Start, fingerprint
from .worker import with_start


def begin(job: Job, config: Any) -> "WorkerMode":
    """Decide what the workers will start from. Runs in the one process that builds the trainer, before it does.

    Reads both checkpoints once, for the digests that tell one start from another; they are remembered.

    Raises:
        InputError: bad input, or a resumed run that started from other weights.
    """
    plan = plan_of(job)
    check_place(plan, job.cache_dir, CACHE_KEY)
    cache = make_directory(job.cache_dir, CACHE_KEY)
    inputs = read_inputs_once(plan, cache, CACHE_KEY, ProgressLines())
    search = keep_at = None
    reset = job.settings.reset
    if reset.ratio:
        digests = input_digests(inputs, reset, RESET_KEY)
        keep_at = set_path(cache, reset, digests)
        chosen = kept_neurons.of_run(config, reset)
        if chosen is None and keep_at.exists():
            chosen = reset_file.load(keep_at, CACHE_KEY)
        if chosen:
            plan = plan_reset(plan, chosen, reset.omega, SET_KEY)
        else:
            search = Search(reset, examples_of(plan.sft, reset, f"{RESET_KEY}calibration", plan.base), digests)
    start = Start(
        _absolute(str(job.settings.base_path)),
        _absolute(job.sft_path),
        job.settings.fusion,
        fingerprint(plan),
        job.settings.ref,
        job.settings.critic,
        reset.omega,
        plan.reset.chosen if plan.reset else None,
        search,
    )
    if not search:
        run_record.check(config, content_key(plan, inputs), job.settings.ref)
    tripwire.disarm(config)
    if job.settings.critic:
        with open_dict(config):
            config.critic.model.path = job.sft_path
    return WorkerMode(job, config, plan, inputs, start, keep_at)


def _absolute(path: str) -> str:
    """A directory as every process can find it, whatever its own working directory; a hub name stays."""
    return path if is_hub_name(path) else os.path.abspath(os.path.expanduser(path))


class WorkerMode(Outcome):
    """One job in worker mode."""

    def __init__(self, job: Job, config: Any, plan: Plan, inputs: Inputs, start: Start, keep_at: Path | None) -> None:
        super().__init__(None if start.search else content_key(plan, inputs), job.settings.ref, {})
        self._job, self._config, self._plan, self._inputs, self._start = job, config, plan, inputs, start
        self._keep_at = keep_at
        if keep_at and plan.reset:
            self.keep = plan.reset.chosen

    def workers(self, role_worker_mapping: dict[Any, Any]) -> dict[Any, Any]:
        return with_start(role_worker_mapping, self._start)

    def settle(self, trainer: Any) -> None:
        reports = trainer.actor_rollout_wg.rejuvenation_report()
        if self._start.search:
            self._take(reports[0]["set"])
        for role in ("ref_policy_wg", "critic_wg"):
            group = getattr(trainer, role, None)
            if group is not None and group is not trainer.actor_rollout_wg:
                self._check_same(role, group.rejuvenation_report())
        drift = by_tensor(self._plan, {part: both for report in reports for part, both in report["drift"].items()})
        seconds = max(report["seconds"] for report in reports)
        said = manifest(self._plan, self._inputs, {}, [_shard(self._plan, drift)], seconds)
        said["parameters_fused"] = sum(operation.common for operation in self._plan.fused if operation.name in drift)
        self._record(said)
        how = f"loaded by {len(reports)} workers, the slowest in {seconds:.1f} s; start {said['key'][:16]}"
        if unread := reports[0]["unread"]:
            how += f"; of no use to the model, and not loaded: {', '.join(unread)}"
        statistics = self._plan.reset.chosen.statistics if self._plan.reset else {}
        entropy = {side: values["mean"] for side, values in (statistics.get("entropy") or {}).items()}
        summary = Summary(self._job, said, how, entropy)
        summary.print(has_reference=need_reference_policy(self._config))
        self.metrics = summary.metrics | {"timing_s/rejuvenation_load": seconds}
        if self._start.search:
            self.metrics["timing_s/rejuvenation_search"] = max(report["search_seconds"] for report in reports)

    def _check_same(self, role: str, reports: Sequence[dict[str, Any]]) -> None:
        ours = self._plan.reset.chosen.digest if self._plan.reset else None
        if theirs := {report["digest"] for report in reports} - {ours}:
            raise RuntimeError(
                f"rejuvenation: expected the actor's neurons {ours} in {role} too, got {theirs}. Fix: give the set "
                "that was found, in rejuvenation.cache_dir, as rejuvenation.reset.set_path"
            )

    def _take(self, found: ResetSet) -> None:
        """What the workers found is now part of what this run started from."""
        self._plan = plan_reset(self._plan, found, self._start.omega, SET_KEY)
        self.key, self.keep = content_key(self._plan, self._inputs), found
        run_record.check(self._config, self.key, self.ref)
        assert self._keep_at is not None
        reset_file.save(found, self._keep_at)

    def _record(self, said: dict[str, Any]) -> None:
        """``rejuvenation-<16 digits>.json`` beside the run's checkpoints; the first one stays."""
        path = run_directory(self._config) / f"rejuvenation-{said['key'][:16]}.json"
        if not path.exists():
            write_text(path, json.dumps(said, indent=1, allow_nan=False) + "\n")


def _shard(plan: Plan, drift: Mapping[str, Sequence[Drift]]) -> Shard:
    """Drift by layer group, added up in the order of the plan, whichever ranks read the tensors."""
    shard = Shard("")
    for operation in plan.fused:
        if operation.name not in drift:
            continue
        group = layer_group(operation.name)
        for groups, part in zip((shard.drift_sft, shard.drift_output), drift[operation.name], strict=True):
            groups[group] = groups.get(group, Drift()) + part
    return shard
