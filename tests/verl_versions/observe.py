# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Runs those functions of verl that our patches change, in a process of its own, and prints what they do as JSON.

``python observe.py MODEL REFERENCE``, with the version of verl to look at on PYTHONPATH.
"""

import json
import os
import sys
from typing import Any
from unittest import mock

import verl
from hydra import compose, initialize_config_module
from hydra.errors import InstantiationException
from omegaconf import DictConfig
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from verl.trainer import constants_ppo
from verl.workers import engine_workers

PLUGIN_VARIABLES = {
    "VERL_USE_EXTERNAL_MODULES": "my_module",
    "VERL_USE_EXTERNAL_PLUGINS": "my_plugin",
    "VERL_PLATFORM": "cpu",
}


def forwarded(**more: str) -> list[str]:
    """The plugin variables that verl hands to Ray's workers."""
    with mock.patch.dict(os.environ, PLUGIN_VARIABLES | more):
        variables = constants_ppo.get_ppo_ray_runtime_env()["env_vars"]
    return sorted(name for name, value in PLUGIN_VARIABLES.items() if variables.get(name) == value)


def composed(*overrides: str) -> DictConfig:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", list(overrides))


class Recorder:
    """In place of the worker that would put the reference on a device."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def reset(self) -> None:
        pass

    def get_dispatch_collect(self) -> dict[str, Any]:
        return {}


def reference(model: str, *overrides: str) -> list[str]:
    """The path that verl's own worker would build the reference from, and where its files are."""
    size = "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=1"
    config = composed(f"actor_rollout_ref.model.path={model}", size, *overrides)
    worker = object.__new__(engine_workers.ActorRolloutRefWorker)
    worker.__dict__.update(config=config.actor_rollout_ref, role="ref", ref_worker_cls=Recorder)
    worker.set_dispatch_collect = lambda **_: None
    # There is no device whose cache could be emptied.
    cache = mock.patch.object(engine_workers, "aggressive_empty_cache", create=True)
    with cache, mock.patch.object(engine_workers, "TrainingWorker", Recorder):
        worker.init_model()
    built = worker.ref.config.model_config
    return [built.path, built.local_path]


class Callback:
    """A user's class, as `trainer.callback_class` names it."""

    def __init__(self, config: DictConfig) -> None:
        self.seen = [f"built for {config.trainer.experiment_name}"]

    def on_train_begin(self, trainer: Any) -> None:
        self.seen.append(f"begin at step {trainer.global_steps}")

    def on_step_end(self, trainer: Any, metrics: dict[str, float]) -> None:
        self.seen.append(f"end of step {trainer.global_steps} with loss {metrics['loss']}")
        metrics["mine"] = 10 * metrics["loss"]


def trained(*overrides: str) -> dict[str, Any]:
    """What verl's own training loop logs in two steps, and what the callback saw; the steps themselves do nothing."""
    from transfer_queue import KVBatchMeta
    from verl.trainer.ppo.v1 import trainer_base

    class Trainer(trainer_base.PPOTrainer):
        _reissue_inflight_prompts = _start_profiling = _stop_profiling = _shutdown_dump_executor = lambda self: None
        on_step_end = on_sample_end = lambda self: None
        global_steps, total_training_steps, steps_per_epoch = 0, 2, 2
        curr_step_profile = False

        def step(self, metrics: dict[str, float], timing_raw: dict[str, float]) -> KVBatchMeta:
            return KVBatchMeta(partition_id="train", keys=[], tags=[])

        def _compute_metrics(self, batch: Any, metrics: dict[str, float], *args: Any, **kwargs: Any) -> None:
            metrics["loss"] = 1.0 / self.global_steps

    logged: dict[int, dict[str, float]] = {}
    tracking = mock.Mock(log=lambda data, step: logged.update({step: dict(data)}))
    quiet = ["trainer.val_before_train=False", "trainer.test_freq=-1", "trainer.save_freq=-1"]
    trainer = Trainer(composed(*quiet, *overrides))
    with mock.patch.object(trainer_base, "Tracking", return_value=tracking), mock.patch.object(trainer_base, "tq"):
        trainer.fit(agent_loop_manager=None)
    return {"logged": logged, "seen": getattr(getattr(trainer, "callback", None), "seen", [])}


def main(model: str, reference_model: str) -> None:
    ray_job = json.dumps({"runtime_env": {"env_vars": {"VERL_USE_EXTERNAL_MODULES": "my_module"}}})
    found = {
        "version": verl.__version__,
        "file": verl.__file__,
        "forwarded": forwarded(),
        "forwarded in a Ray job that names one": forwarded(**{RAY_JOB_CONFIG_JSON_ENV_VAR: ray_job}),
        "reference": reference(model),
    }
    try:
        found["other reference"] = reference(model, f"+actor_rollout_ref.ref.model.path={reference_model}")
    except InstantiationException as error:
        found["other reference"] = str(error)
    if verl.__version__ >= "0.9":
        found["plain"] = trained()
        found["with a callback"] = trained(f"+trainer.callback_class={__name__}.Callback")
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
