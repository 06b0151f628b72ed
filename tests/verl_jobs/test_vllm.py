# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The same job with vLLM as the rollout: its CPU build, which a laptop can run but rarely wants to wait for."""

from pathlib import Path

import pytest
from verl_jobs.job import Job, on_vllm

pytestmark = pytest.mark.vllm


def test_rejuvenated_job_with_vllm_rollouts(models: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, models / "sft", models / "data", steps=2)
    job.env = on_vllm()
    job.overrides = [
        "+rejuvenation=default", f"rejuvenation.base_path={models}/base",
        "actor_rollout_ref.rollout.name=vllm", "actor_rollout_ref.rollout.max_num_seqs=16",
    ]  # fmt: skip
    job.run()
    # The weights that vLLM samples with are the actor's, from the rejuvenated start on and after an update.
    for step in (1, 2):
        assert job.log_prob_gap(step) < 1e-5
    assert job.metrics[1]["actor/grad_norm"] > 0
    assert job.metrics[0]["training/rejuvenation/alpha"] == 0.5
