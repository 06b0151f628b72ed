# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Scripts for clusters, as far as a machine without one goes: verl composes the configuration, and we accept it."""

import os
import subprocess
import sys
from pathlib import Path

import yaml
from omegaconf import OmegaConf

from rejuv_plugin.integrations.verl.job import job_of

RECIPES = Path(__file__).parents[2] / "recipes"


def test_megatron_grpo(tmp_path: Path) -> None:
    env = os.environ | {"SFT": "/sft", "BASE": "/base", "TRAIN": "t.parquet", "VAL": "v.parquet"}
    env |= {"CALIBRATION": "pairs.jsonl", "VERL_PLATFORM": "cpu"}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    command = ["bash", str(RECIPES / "megatron_grpo" / "run_qwen3_30b_a3b_megatron.sh"), "--cfg", "job"]
    result = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    config = OmegaConf.create(yaml.safe_load(result.stdout))
    job = job_of(config)
    assert job is not None
    assert job.settings.mode == "worker"
    assert job.settings.reset.calibration == "pairs.jsonl"
    actor = config.actor_rollout_ref.actor
    assert (actor.strategy, actor.megatron.expert_model_parallel_size) == ("megatron", 8)
    assert actor.megatron.tensor_model_parallel_size == config.actor_rollout_ref.ref.megatron.tensor_model_parallel_size
