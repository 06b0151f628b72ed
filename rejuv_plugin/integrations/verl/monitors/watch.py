# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Plasticity as the trainer sees it: asks the workers after each step, adds what the batch tells, and keeps it all."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite, nan
from pathlib import Path
from typing import Any

import transfer_queue
from omegaconf import OmegaConf

from ....checkpoint.small_file import write_text
from ....checkpoint.source import locate
from ....errors import InputError
from ....monitors import groups
from ....monitors.alarms import Alarms
from ....monitors.catalogue import ENTROPY_DROP
from ....monitors.history import ALARMS, PLASTICITY, History, step_record
from ....monitors.metric import ACTOR, TRAINER
from ....monitors.monitor import Values, is_due
from ....probe.dialogue import Example
from ..job import Job, run_directory
from .probe_set import probe_set_of
from .worker import Watching, with_monitors

STATE = "plasticity.json"
_VERLS_OWN = (
    *("critic/score/mean", "critic/rewards/mean", "val-core/", "val-aux/", "actor/entropy", "actor/grad_norm"),
    *("actor/lr", "actor/ppo_kl", "actor/kl_loss", "response_length/mean", "num_turns/mean", "timing_s/step"),
)
"""Metrics of verl, by prefix, that belong into the same picture."""
COMPARING = (
    *("grpo", "grpo_vectorized", "rloo", "rloo_vectorized", "opo", "gpg"),
    *("reinforce_plus_plus_baseline", "optimal_token_baseline", "tir_optimal_token_baseline"),
)
"""Of verl's ``algorithm.adv_estimator`` those that compare the answers to a prompt with one another. By ``grpo_passk``
a group teaches only if its best score is one answer's alone. What a user's own estimator does is not known."""


class Watch:
    """Of one job. What fails in here ends the monitors, never the job."""

    def __init__(self, job: Job, config: Any) -> None:
        """Reads the probe set.

        Raises:
            InputError: what is wrong with it.
        """
        self._settings = job.settings.monitors
        self._base_path = str(job.settings.base_path)
        self._examples: Sequence[Example] = probe_set_of(job)
        self._directory = run_directory(config)
        self._compared = OmegaConf.select(config, "algorithm.adv_estimator") in COMPARING
        self._filtered = bool(OmegaConf.select(config, "algorithm.filter_groups.enable"))
        # As verl decides whether a step updates the policy.
        begin = max(1, OmegaConf.select(config, "trainer.critic_warmup") or 0)
        self._alarms = Alarms(begin=begin) if self._settings.alarms else None
        self._entropy_at_start: float | None = None
        self._steps: History | None = None
        self._raised: History | None = None
        self._off = False
        self._seconds = 0.0
        """Since the last measurement, in what was asked of the workers and in their own training."""
        self._saved = 0, Path()
        """The last step that a checkpoint was saved at, and where."""

    def workers(self, role_worker_mapping: dict[Any, Any]) -> dict[Any, Any]:
        """verl's ``role -> Ray actor class``, with monitors; the argument is not changed."""
        try:
            base: Path | None = locate(self._base_path, "rejuvenation.base_path")
        except InputError:
            base = None
        return with_monitors(role_worker_mapping, Watching(self._settings, base, tuple(self._examples)))

    def begin(self, trainer: Any, folder: Path | None) -> None:
        """Called when all is loaded: from a checkpoint's ``folder``, or None in a new run."""
        with self._guarded(trainer.global_steps):
            if folder is not None:
                trainer.actor_rollout_wg.plasticity_load(str(folder))
                if (folder / STATE).exists():
                    state = json.loads((folder / STATE).read_text())
                    self._entropy_at_start = state["entropy_at_start"]
                    if self._alarms:
                        self._alarms.load_state(state["alarms"])
            self._steps = History(self._directory / PLASTICITY, trainer.global_steps)
            self._raised = History(self._directory / ALARMS, trainer.global_steps)

    def before_training(self, metrics: dict[str, Any]) -> None:
        """Keep verl's validation of a new run's start, as step 0."""
        if self._off or not self._steps:
            return
        with self._guarded(0), self._kept(0):
            self._steps.add(step_record(0, _of_verl(metrics), {}))

    def save(self, trainer: Any, folder: str) -> None:
        """Keep in a checkpoint's ``folder`` what `begin` needs."""
        if self._off:
            return
        with self._guarded(trainer.global_steps):
            trainer.actor_rollout_wg.plasticity_save(folder)
            self._saved = trainer.global_steps, Path(folder)
            self._save_state()

    def _save_state(self) -> None:
        alarms = self._alarms.state() if self._alarms else {}
        state = {"entropy_at_start": self._entropy_at_start, "alarms": alarms}
        write_text(self._saved[1] / STATE, json.dumps(state) + "\n")

    def ahead(self, trainer: Any) -> None:
        """Called after the step's updates, while the rollout sleeps."""
        step = trainer.global_steps
        if self._examples and not self._off and is_due(step, self._settings.probe_set.every):
            began = time.perf_counter()
            with self._guarded(step):
                trainer.actor_rollout_wg.plasticity_ahead(step)
            self._seconds += time.perf_counter() - began

    def measure(self, trainer: Any, batch: Any, metrics: dict[str, Any]) -> bool:
        """Add to verl's ``metrics`` of the step that was just done, in place; true if the run is to end here."""
        if self._off:
            return False
        began, raised = time.perf_counter(), False
        with self._guarded(trainer.global_steps):
            values = self._asked(trainer)
            self._since_start(values)
            found = {f"{ACTOR}{name}": value for name, value in values.flat(each=self._settings.per_layer).items()}
            found |= {f"{TRAINER}{name}": value for name, value in self._groups(batch).items()}
            seen = _of_verl(metrics) | found
            raised = self._judge(trainer.global_steps, seen)
            metrics |= found
            if self._alarms:
                metrics |= self._alarms.metrics()
                seen |= self._alarms.metrics()
            layers = {f"{ACTOR}{name}": each for name, each in values.layers.items()}
            with self._kept(trainer.global_steps):
                if self._steps:
                    self._steps.add(step_record(trainer.global_steps, seen, layers))
                # verl saves before a step is measured: its checkpoint gets what this step said, too.
                if self._saved[0] == trainer.global_steps:
                    self._save_state()
            metrics["timing_s/plasticity"] = self._seconds + time.perf_counter() - began
            self._seconds = 0.0
        return raised and self._settings.stop_on_alarm

    @contextmanager
    def _guarded(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._off = True
            print(f"rejuvenation: monitors are off from step {step} on: {error!r}", flush=True)

    @contextmanager
    def _kept(self, step: int) -> Iterator[None]:
        """A disk that is full now may have room later; metrics and alarms go on without it."""
        try:
            yield
        except OSError as error:
            print(f"rejuvenation: what monitors saw at step {step} is not kept: {error}", flush=True)

    def _asked(self, trainer: Any) -> Values:
        reports = trainer.actor_rollout_wg.plasticity_report(trainer.global_steps)
        report = next(report for report in reports if report is not None)
        for name, reason in report.failed.items():
            print(f"rejuvenation: monitor {name} is off from step {trainer.global_steps} on: {reason}", flush=True)
        self._seconds += report.seconds
        return report.values

    def _since_start(self, values: Values) -> None:
        entropy = values.numbers.get("entropy", nan)
        if not isfinite(entropy):
            return
        # Not 0, of which there is no share, nor what an earlier version may have kept.
        if not (self._entropy_at_start and isfinite(self._entropy_at_start)):
            self._entropy_at_start = entropy
        if self._entropy_at_start > 0:
            values.numbers[ENTROPY_DROP.name] = 1.0 - entropy / self._entropy_at_start

    def _groups(self, batch: Any) -> dict[str, float]:
        if not self._settings.groups:
            return {}
        rows = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        data = transfer_queue.kv_batch_get(
            keys=last_outputs(rows), partition_id=batch.partition_id, select_fields=["uid", "rm_scores"]
        )
        scores = [float(each.sum()) for each in data["rm_scores"].unbind()]
        prompts = [str(uid) for uid in data["uid"]]
        return groups.signals(
            scores, prompts, self._settings.pass_score, compared=self._compared, filtered=self._filtered
        )

    def _judge(self, step: int, seen: dict[str, float]) -> bool:
        """Whether an alarm was raised."""
        alarms = self._alarms.look(step, seen) if self._alarms else []
        for alarm in alarms:
            print(alarm, flush=True)
            with self._kept(step):
                if self._raised:
                    self._raised.add(alarm.to_json())
        return any(not alarm.ended for alarm in alarms)


def _of_verl(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if name.startswith(_VERLS_OWN)}


def last_outputs(keys: Sequence[str]) -> list[str]:
    """Of an answer that an agent loop gave in several outputs, its last: the others have the same reward once more.

    Args:
        keys: verl's, ``{uid}_{session}_{index}``.
    """
    found: dict[str, tuple[int, str]] = {}
    for key in keys:
        session, _, index = key.rpartition("_")
        session, at = (session, int(index)) if index.isdecimal() else (key, 0)
        found[session] = max(found.get(session, (-1, "")), (at, key))
    return [key for _, key in found.values()]
