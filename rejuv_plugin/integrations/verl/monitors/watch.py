# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Plasticity as the trainer sees it: asks the workers after each step, adds what the batch tells, and keeps it all."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transfer_queue

from ....checkpoint.small_file import write_text
from ....monitors import groups
from ....monitors.monitor import Values
from ..job import Job
from .worker import Watching, with_monitors

STATE = "plasticity.json"
_ACTOR, _TRAINER = "actor/plasticity/", "training/plasticity/"
_VERLS_OWN = (
    *("critic/score/mean", "critic/rewards/mean", "val-core/", "val-aux/", "actor/entropy", "actor/grad_norm"),
    *("actor/lr", "actor/ppo_kl", "actor/kl_loss", "response_length/mean", "num_turns/mean", "timing_s/step"),
)
"""Metrics of verl that belong into the same picture, by prefix."""


class Watch:
    """Of one job. A failure in here ends the monitors, never the job."""

    def __init__(self, job: Job) -> None:
        self._settings = job.settings.monitors
        self._base_path = str(job.settings.base_path)
        self._off = False
        self._entropy_at_start: float | None = None

    def workers(self, role_worker_mapping: dict[Any, Any]) -> dict[Any, Any]:
        """verl's ``role -> Ray actor class``, with monitors; the argument is not changed."""
        base = self._base_path
        base = os.path.abspath(os.path.expanduser(base)) if os.path.isdir(os.path.expanduser(base)) else base
        return with_monitors(role_worker_mapping, Watching(self._settings, base))

    def resume(self, trainer: Any, folder: Path | None) -> None:
        """Go on from a checkpoint's ``folder``, if one was loaded."""
        if folder is None:
            return
        trainer.actor_rollout_wg.plasticity_load(str(folder))
        state = folder / STATE
        if state.exists():
            self._entropy_at_start = json.loads(state.read_text())["entropy_at_start"]

    def save(self, trainer: Any, folder: str) -> None:
        """Keep what `resume` needs."""
        trainer.actor_rollout_wg.plasticity_save(folder)
        write_text(Path(folder) / STATE, json.dumps({"entropy_at_start": self._entropy_at_start}) + "\n")

    def measure(self, trainer: Any, batch: Any, metrics: dict[str, Any]) -> None:
        """Add to verl's ``metrics`` of the step that was just done, in place."""
        if self._off:
            return
        began = time.perf_counter()
        try:
            values, found = self._asked(trainer), self._groups(batch)
            self._since_start(values)
            flat = values.flat()
            if self._settings.per_layer:
                flat |= _each_layer(values)
            metrics |= {f"{_ACTOR}{name}": value for name, value in flat.items()}
            metrics |= {f"{_TRAINER}{name}": value for name, value in found.items()}
            metrics["timing_s/plasticity"] = time.perf_counter() - began
        except Exception as error:
            self._off = True
            print(f"rejuvenation: monitors are off from step {trainer.global_steps} on: {error!r}", flush=True)

    def _asked(self, trainer: Any) -> Values:
        reports = trainer.actor_rollout_wg.plasticity_report(trainer.global_steps)
        report = next(report for report in reports if report is not None)
        for name, reason in report.failed.items():
            print(f"rejuvenation: monitor {name} is off from step {trainer.global_steps} on: {reason}", flush=True)
        return report.values

    def _groups(self, batch: Any) -> dict[str, float]:
        if not self._settings.groups:
            return {}
        rows = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        data = transfer_queue.kv_batch_get(
            keys=rows, partition_id=batch.partition_id, select_fields=["uid", "rm_scores"]
        )
        scores = [float(each.sum()) for each in data["rm_scores"].unbind()]
        return groups.signals(scores, list(map(str, data["uid"])), self._settings.pass_score)

    def _since_start(self, values: Values) -> None:
        entropy = values.numbers.get("entropy")
        if entropy is None:
            return
        if self._entropy_at_start is None:
            self._entropy_at_start = entropy
        if self._entropy_at_start > 0:
            values.numbers["entropy_drop"] = 1.0 - entropy / self._entropy_at_start


def _each_layer(values: Values) -> Mapping[str, float]:
    return {
        f"{name}_layers/{layer:03}": value
        for name, each in values.layers.items()
        for layer, value in enumerate(each)
        if value == value
    }
