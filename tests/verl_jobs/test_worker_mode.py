# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Worker mode inside real verl jobs: the same run, bit for bit, as disk mode."""

import json
from pathlib import Path

import pytest
import torch
from verl_jobs.job import Job, without_timings

from rejuv_plugin.checkpoint import plan_fusion
from rejuv_plugin.checkpoint.reset_file import save
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.neurons.modules import modules_of
from rejuv_plugin.neurons.reset_set import Chosen, ResetSet


@pytest.fixture(scope="module")
def reset_set(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = plan_fusion(str(models / "base"), str(models / "sft"), FusionConfig())
    modules = modules_of(plan.sft.config, plan.sft.shapes, "--sft")
    chosen = {m.name: Chosen(m.kind, m.count, tuple(range(0, m.count, 5))) for m in modules}
    path = tmp_path_factory.mktemp("set") / "set.json"
    save(ResetSet("qwen2", chosen), path)
    return path


def job_in(mode: str, models: Path, reset_set: Path, directory: Path, *overrides: str) -> Job:
    job = Job(directory / mode, models / "sft", models / "data", steps=2)
    job.overrides = [
        "+rejuvenation=default", f"rejuvenation.base_path={models}/base", f"rejuvenation.mode={mode}",
        f"rejuvenation.reset.set_path={reset_set}", "rejuvenation.fusion.alpha=0.4",
        "actor_rollout_ref.actor.use_kl_loss=True", "trainer.save_freq=2",
        *overrides,
    ]  # fmt: skip
    return job.run()


def test_worker_mode_is_the_run_of_disk_mode(models: Path, reset_set: Path, tmp_path: Path) -> None:
    """GRPO with a KL reference on two FSDP2 workers."""
    overrides = ("trainer.n_gpus_per_node=2",)
    disk, worker = (job_in(mode, models, reset_set, tmp_path, *overrides) for mode in ("disk", "worker"))
    ours, theirs = worker.final_weights(), disk.final_weights()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert not list((worker.directory / "checkpoints").rglob("model.safetensors"))

    def of_training(job: Job) -> dict:
        """But for the step before training, which tells of the start, and how long that took."""
        return {step: row for step, row in without_timings(job.metrics).items() if step}

    assert of_training(worker) == of_training(disk)
    started, expected = worker.metrics[0], disk.metrics[0]
    for name in ("fused_parameters", "drift_sft", "drift_start", "reset_neurons", "reset_share"):
        assert started[f"training/rejuvenation/{name}"] == pytest.approx(expected[f"training/rejuvenation/{name}"])
    assert "rejuvenation: loaded by 2 workers" in worker.log
    (record,) = (worker.directory / "checkpoints").glob("rejuvenation-*.json")
    assert json.loads(record.read_text())["key"].startswith(record.stem.rpartition("-")[2])
