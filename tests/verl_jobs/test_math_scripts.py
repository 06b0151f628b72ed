# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``recipes/math_grpo/try_on_cpu.sh``: data, SFT ladder, diagnosis, two steps of every run script, with Math-Verify."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from verl_jobs.job import Job, on_vllm, plasticity

pytestmark = pytest.mark.recipe_scripts

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "math_grpo"


def try_on_cpu(out: Path, *scripts: str, **more: str) -> None:
    """Run the script in this environment; one that fails shows the end of what it wrote."""
    ray_dir = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    env = os.environ | {"OUT": str(out), "VENV": sys.prefix, "RAY_TMPDIR": ray_dir, "TQ_LOGGING_LEVEL": "WARN", **more}
    command = ["bash", str(RECIPE / "try_on_cpu.sh"), *scripts]
    try:
        result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=2400)
    finally:
        shutil.rmtree(ray_dir, ignore_errors=True)
    assert result.returncode == 0, f"{result.stdout[-2000:]}\n{result.stderr[-6000:]}"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    try_on_cpu(directory)
    return directory


def weights(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / "model.safetensors")


def furthest(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    """The largest difference of two elements, over the tensors that both have."""
    shared = some.keys() & others.keys()
    assert len(shared) > 20
    return max(float((some[name].float() - others[name].float()).abs().max()) for name in shared)


def fused(out: Path) -> dict[str, torch.Tensor]:
    """What RL starts from: fusion with alpha 0.5."""
    base, sft = weights(out / "base"), weights(out / "ladder" / "epochs_8")
    return {name: (base[name] + sft[name]) / 2 for name in base}


def job(out: Path, name: str) -> Job:
    """A finished run, with what is true of each."""
    run = Job(out / name, out / "ladder" / "epochs_8", out)
    assert run.metrics[0]["training/rejuvenation/alpha"] == 0.5
    for step in (0, 2):
        assert 0 <= run.metrics[step]["val-core/sums/acc/mean@2"] <= 1
    for step in (1, 2):
        row = run.metrics[step]
        assert -2 <= row["critic/score/min"] <= row["critic/score/max"] <= 1
        assert math.isfinite(row["actor/pg_loss"])
        assert 0 < row["actor/grad_norm"] < math.inf
    trained = {name.partition(".")[2]: value for name, value in run.final_weights(2).items()}
    # At most Adam's four steps of 1e-3 away, and closer to where it started than to the SFT checkpoint.
    assert 1e-4 < furthest(trained, fused(out)) < 1e-2
    return run


def test_two_depths_of_one_ladder(out: Path) -> None:
    log = (out / "ladder.log").read_text()
    steps = [(int(step), float(loss)) for step, loss in re.findall(r"step:(\d+) - .*?train/loss:([\d.e+-]+)", log)]
    # 32 rows, 16 at a time: 2 epochs are steps 1 to 4, and the second depth goes on at step 5.
    assert [step for step, _ in steps] == list(range(1, 17))
    losses = [loss for _, loss in steps]
    assert all(map(math.isfinite, losses))
    assert sum(losses[-4:]) < sum(losses[:4])
    depths = [out / "ladder" / f"epochs_{epochs}" for epochs in (2, 8)]
    far = [furthest(weights(depth), weights(out / "base")) for depth in depths]
    assert 0 < far[0] < far[1]
    for depth in depths:
        assert "<|im_start|>" in (depth / "chat_template.jinja").read_text()
        assert json.loads((depth / "config.json").read_text())["architectures"] == ["Qwen2ForCausalLM"]


def test_both_depths_are_diagnosed(out: Path) -> None:
    assert (out / "diagnosis" / "report.html").stat().st_size > 10_000
    found = (out / "diagnosis" / "metrics.json").read_text()
    assert "epochs_2" in found
    assert "epochs_8" in found


def test_grpo(out: Path) -> None:
    run = job(out, "evolm_4b_grpo")
    for step in (1, 2):
        assert math.isfinite(run.metrics[step]["actor/kl_loss"])


def test_dapo_replaces_groups_of_one_outcome(out: Path) -> None:
    run = job(out, "qwen3_8b_dapo")
    for step in (1, 2):
        row = run.metrics[step]
        # Not one of 8 groups without a gradient, where as many as were drawn had some.
        assert plasticity(row)["zero_advantage_groups"] == 0
        assert "actor/kl_loss" not in row
    assert sum(run.metrics[step].get("training/filter_groups/evicted_samples", 0) for step in (1, 2)) > 0


def test_ppo_trains_its_critic(out: Path) -> None:
    run = job(out, "qwen3_4b_ppo")
    for step in (1, 2):
        row = run.metrics[step]
        assert math.isfinite(row["critic/vf_loss"])
        assert 0 < row["critic/grad_norm"] < math.inf
        assert row["critic/values/min"] < row["critic/values/max"]
    # From the SFT checkpoint as it is: nearer to that than the policy's start is.
    critic = {name.partition(".")[2]: value for name, value in run.final_weights(2, "critic").items()}
    sft = weights(out / "ladder" / "epochs_8")
    assert 0 < furthest(critic, sft) < furthest(fused(out), sft)


@pytest.mark.vllm
def test_grpo_with_vllm_rollouts(out: Path) -> None:
    """Last: the run takes the place of the other."""
    try_on_cpu(out, "run_evolm_4b_grpo.sh", ROLLOUT="vllm", **on_vllm())
    run = job(out, "evolm_4b_grpo")
    assert "vLLM" in (run.directory / "log.txt").read_text()
    for step in (1, 2):
        assert run.metrics[step]["training/rollout_probs_diff_max"] < 1e-3
