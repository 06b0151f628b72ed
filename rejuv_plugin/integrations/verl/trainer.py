# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What verl's three V1 trainers do more when the configuration has a ``rejuvenation`` group.

The mixin goes into verl's registry under the trainers' own names (sync, colocate_async, separate_async): verl compares
``trainer_mode`` with these names in several places, so a trainer under a new name would silently get the wrong replay
buffer.
"""

import os
from typing import TYPE_CHECKING, Any

from omegaconf import open_dict
from verl.trainer.ppo.utils import need_reference_policy

from . import run_record
from .job import Job, job_of
from .outcome import Outcome

if TYPE_CHECKING:
    from .monitors.watch import Watch


class RejuvenationMixin:
    """Placed before a V1 trainer class.

    Without a ``rejuvenation`` group every method is the trainer's own; the constructor then only refuses to resume a
    run that was rejuvenated.
    """

    _rejuvenated: Outcome | None = None
    _watch: "Watch | None" = None

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        job = job_of(config)
        if job is None:
            run_record.check(config, None)
        else:
            # It may refuse its probe set: before anything is written.
            self._watch = _watch(job, config)
            # Before super(): tokenizer, workers, rollout and agent loops all read the model path from this config.
            self._rejuvenated = _begin(job, config)
        super().__init__(config, *args, **kwargs)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()  # type: ignore[misc]
        if self._rejuvenated is not None:
            self.role_worker_mapping = self._rejuvenated.workers(self.role_worker_mapping)
        if self._watch is not None:
            self.role_worker_mapping = self._watch.workers(self.role_worker_mapping)

    def _load_checkpoint(self) -> None:
        if self._rejuvenated is not None:
            self._rejuvenated.settle(self)
        super()._load_checkpoint()  # type: ignore[misc]
        if self._watch is not None:
            loaded = run_record.resumed_from(self.config.trainer) if self.global_steps > 0 else None
            self._watch.begin(self, loaded)

    def on_train_begin(self) -> None:
        super().on_train_begin()  # type: ignore[misc]
        if self._rejuvenated is not None:
            # verl has already counted to the first step; the transform belongs to the state before it.
            self.logger.log(data=self._rejuvenated.metrics, step=self.global_steps - 1)

    def _validate(self) -> dict[str, float]:
        metrics: dict[str, float] = super()._validate()  # type: ignore[misc]
        # Later ones are among the metrics of a step, and a resumed run's first one is that of the step it goes on at.
        if self._watch is not None and self.global_steps == 0:
            self._watch.before_training(metrics)
        return metrics

    def on_step_end(self) -> None:
        if self._watch is not None:
            # Before super(), which wakes the rollout: afterwards the memory of colocated devices is the rollout's.
            self._watch.ahead(self)
        super().on_step_end()  # type: ignore[misc]

    def _save_checkpoint(self) -> None:
        if self._rejuvenated is not None:
            # Before verl's own files: a checkpoint that can be resumed then always has its record.
            folder = os.path.join(self.config.trainer.default_local_dir, f"global_step_{self.global_steps}")
            run_record.write(
                folder,
                self._rejuvenated.key,
                self._rejuvenated.keep,
                self._rejuvenated.tuned,
                self._rejuvenated.ref if need_reference_policy(self.config) else None,
            )
            if self._watch is not None:
                self._watch.save(self, folder)
        super()._save_checkpoint()  # type: ignore[misc]

    def _compute_metrics(self, batch: Any, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super()._compute_metrics(batch, metrics, *args, **kwargs)  # type: ignore[misc]
        if self._watch is not None and self._watch.measure(self, batch, metrics):
            self._end_soon()

    def _end_soon(self) -> None:
        """Make the next step verl's last one, which saves while the rollout sleeps, and validates if the job does."""
        self.total_training_steps = min(self.total_training_steps, self.global_steps + 1)
        if self.config.trainer.save_freq <= 0:
            with open_dict(self.config):
                self.config.trainer.save_freq = self.total_training_steps
        print(f"rejuvenation: an alarm was raised; step {self.total_training_steps} is the last", flush=True)


def _watch(job: Job, config: Any) -> "Watch | None":
    if not job.settings.monitors.enabled:
        return None
    from .monitors.watch import Watch

    return Watch(job, config)


def _begin(job: Job, config: Any) -> Outcome:
    if job.settings.mode == "worker":
        from .worker_mode import mode

        return mode.begin(job, config)
    from . import disk_mode

    return disk_mode.apply(job, config)


def extend_registered_trainers(registry: dict[str, type]) -> None:
    """Replace each registered trainer class by a subclass of the same name with the mixin in front, in place."""
    for mode, trainer in registry.items():
        if not issubclass(trainer, RejuvenationMixin):
            registry[mode] = type(trainer.__name__, (RejuvenationMixin, trainer), {"__module__": trainer.__module__})
