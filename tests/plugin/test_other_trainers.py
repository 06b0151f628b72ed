# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's trainers that are not extended refuse the flag, and are as ever without it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_pair
from omegaconf import OmegaConf

from rejuv_plugin.errors import InputError
from rejuv_plugin.integrations.verl.other_trainers import checked_run, checked_trainer

COMMANDS = {
    "verl.experimental.fully_async_policy.fully_async_main": "FullyAsyncTaskRunner",
    "verl.experimental.one_step_off_policy.main_ppo": "OneStepTaskRunner",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_another_command_of_verl_ends_before_ray_starts(command: str, tmp_path: Path) -> None:
    options = [
        *("hydra.searchpath=[pkg://verl.trainer.config]", f"hydra.run.dir={tmp_path}"),
        *("+rejuvenation=default", "rejuvenation.base_path=base", "actor_rollout_ref.model.path=sft"),
    ]
    environment = os.environ | {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", command, *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2, done.stderr[-3000:]
    expected = f"expected verl.trainer.main_ppo, whose trainers apply it, got {COMMANDS[command]}. Fix: run python -m"
    assert f"rejuvenation: rejuvenation: {expected}" in done.stderr
    assert "Started a local Ray instance" not in done.stdout + done.stderr


def config_of(root: Path, asks: bool = True) -> Any:
    return OmegaConf.create(
        {
            "trainer": {"use_v1": True, "default_local_dir": str(root / "run")},
            "actor_rollout_ref": {"model": {"path": str(root / "sft"), "external_lib": None}},
        }
        | ({"rejuvenation": {"base_path": str(root / "base")}} if asks else {})
    )


def test_a_users_own_task_runner_is_checked_and_trips_if_its_trainer_is_plain(tmp_path: Path) -> None:
    class Runner:
        pass

    ran: list[Any] = []
    run = checked_run(lambda config, task_runner_class: ran.append(task_runner_class))
    make_pair(tmp_path)
    config = config_of(tmp_path)
    run(config, task_runner_class=Runner)
    assert ran == [Runner]
    assert config.actor_rollout_ref.model.external_lib == ["rejuv_plugin.integrations.verl.tripped"]
    config.rejuvenation.base_path = str(tmp_path / "gone")
    with pytest.raises(SystemExit):
        run(config, task_runner_class=Runner)
    assert ran == [Runner]


def test_without_the_flag_any_runner_goes_on(tmp_path: Path) -> None:
    from verl.trainer.main_ppo_v0 import TaskRunner

    ran: list[Any] = []
    config = config_of(tmp_path, asks=False)
    copy = OmegaConf.create(OmegaConf.to_container(config))
    checked_run(lambda config, task_runner_class: ran.append((config, task_runner_class)))(config, TaskRunner)
    assert ran == [(copy, TaskRunner)]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_trainer_that_others_made_of_the_legacy_one_is_refused(tmp_path: Path) -> None:
    """As recipes do that have a ``run_ppo`` of their own; the hook is armed in this process too."""
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer

    class TheirTrainer(RayPPOTrainer):
        def __init__(self, config: Any) -> None:
            super().__init__(config, tokenizer=None, role_worker_mapping={}, resource_pool_manager=None)

    with pytest.raises(InputError, match=r"^rejuvenation: expected verl.trainer.main_ppo, .* got TheirTrainer"):
        TheirTrainer(config_of(tmp_path))
    built: list[Any] = []
    checked_trainer(lambda self, config, tokenizer: built.append((config, tokenizer)))(None, {}, tokenizer="t")
    assert built == [({}, "t")]


def test_the_extended_trainers_are_none_of_them() -> None:
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    assert len(TRAINER_REGISTRY) >= 3
    assert not [name for name, trainer in TRAINER_REGISTRY.items() if issubclass(trainer, RayPPOTrainer)]
