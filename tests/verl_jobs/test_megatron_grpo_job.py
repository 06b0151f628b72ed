# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The Megatron recipe's own script under verl: a tiny mixture of experts, rejuvenated in the worker."""

from pathlib import Path

import pytest
import tiny
from beside import beside
from megatron_cpu import models
from verl_jobs.job import RECIPES, Script, on_megatron, on_vllm, plasticity

pytestmark = pytest.mark.recipe_scripts


def two_steps(tmp_path: Path, head_dim: int = 16, **variables: str) -> Script:
    base, sft = (
        models.save(tmp_path / name, "qwen3_moe", seed=seed, head_dim=head_dim)
        for seed, name in enumerate(("base", "sft"))
    )
    data = tmp_path / "data"
    tiny.save_data(data)
    script = RECIPES / "megatron_grpo" / "run_qwen3_30b_a3b_megatron.sh"
    job = Script(tmp_path / "run", sft, data, steps=2, script=script)
    job.env = variables | {
        "SFT": str(sft), "BASE": str(base), "TRAIN": str(data / "train.parquet"), "VAL": str(data / "val.parquet"),
        "OUT": str(job.directory), "TP": "1", "PP": "1", "EP": "1", "OFFLOAD": "False", "STEPS": "2",
        "TRAIN_BATCH": "4", "MINI_BATCH": "4", "GROUP": "4", "MAX_PROMPT": "48", "MAX_RESPONSE": "8", "LR": "1e-3",
    }  # fmt: skip
    job.overrides = [
        f"reward.custom_reward_function.path={data}/reward.py",
        "actor_rollout_ref.rollout.max_model_len=128",
        "algorithm.rollout_correction.rollout_is=token",
        "trainer.save_freq=-1",
        'trainer.logger=["console","file"]',
    ]
    job.run()
    assert job.metrics[0]["training/rejuvenation/alpha"] == 0.5
    for step in (1, 2):
        assert job.metrics[step]["actor/grad_norm"] > 0
        assert plasticity(job.metrics[step])["entropy"] == pytest.approx(job.metrics[step]["actor/entropy"], rel=1e-3)
        assert job.log_prob_gap(step) < 1e-3
    return job


def test_two_steps_of_the_script(tmp_path: Path) -> None:
    two_steps(tmp_path, **on_megatron())


@pytest.mark.vllm
def test_two_steps_with_vllm_rollouts(tmp_path: Path) -> None:
    # vLLM's CPU kernels take no smaller heads.
    job = two_steps(tmp_path, head_dim=32, ROLLOUT="vllm", **on_vllm() | on_megatron(beside("vllm")))
    assert "vLLMHttpServer" in job.log
