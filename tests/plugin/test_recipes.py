# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Scripts for clusters, as far as a machine without one goes: verl composes the configuration, and we accept it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from rejuv_plugin.integrations.verl.job import job_of

RECIPES = Path(__file__).parents[2] / "recipes"


def composed(script: str, env: dict[str, str], tmp_path: Path) -> DictConfig:
    """The configuration that verl makes of a recipe's command."""
    env = os.environ | {"VERL_PLATFORM": "cpu"} | env
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    command = ["bash", str(RECIPES / script), "--cfg", "job"]
    result = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    return OmegaConf.create(yaml.safe_load(result.stdout))


def test_megatron_grpo(tmp_path: Path) -> None:
    env = {"SFT": "/sft", "BASE": "/base", "TRAIN": "t.parquet", "VAL": "v.parquet", "CALIBRATION": "pairs.jsonl"}
    config = composed("megatron_grpo/run_qwen3_30b_a3b_megatron.sh", env, tmp_path)
    job = job_of(config)
    assert job is not None
    assert job.settings.mode == "worker"
    assert job.settings.reset.calibration == "pairs.jsonl"
    actor = config.actor_rollout_ref.actor
    assert (actor.strategy, actor.megatron.expert_model_parallel_size) == ("megatron", 8)
    assert actor.megatron.tensor_model_parallel_size == config.actor_rollout_ref.ref.megatron.tensor_model_parallel_size


@pytest.mark.parametrize(
    ("arm", "start", "alpha", "path"),
    [("moderate", "", 1.0, "/models/sft4"), ("sft8", "/x", 1.0, "/x")],
)
def test_quickstart_from_any_start(tmp_path: Path, arm: str, start: str, alpha: float, path: str) -> None:
    env = {"ARM": arm, "START": start, "MODELS": "/models", "RUN_DIR": str(tmp_path)}
    config = composed("quickstart/run_nav_fsdp2.sh", env, tmp_path)
    job = job_of(config)
    assert job is not None
    assert (config.trainer.experiment_name, config.actor_rollout_ref.model.path) == (arm, path)
    assert (job.settings.fusion.alpha, job.settings.base_path) == (alpha, "/models/base")
