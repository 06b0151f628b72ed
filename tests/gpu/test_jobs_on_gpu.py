# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Whole verl jobs whose engine trains on a GPU, with laptop mode's rollout beside it. Skipped where there is none."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file
from verl_jobs.conftest import models as models
from verl_jobs.job import DETERMINISTIC, ROOT, STANDING_STILL, Job, importing, plasticity

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.verl_job,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use"),
]

ON_GPU = importing(ROOT / "tests") | {
    "VERL_PLATFORM": "nvidia",
    "VERL_USE_EXTERNAL_MODULES": "gpu_jobs",
    "VERL_DISABLE_FLASH_ATTN_CE": "1",  # its sums come in another order every time
}


def job(models: Path, directory: Path, *overrides: str, steps: int = 2) -> Job:
    data = tiny.save_calibration(directory.with_suffix(".jsonl"))
    repair = [
        "+rejuvenation=default", f"rejuvenation.base_path={models}/base",
        "rejuvenation.reset.ratio=0.05", f"rejuvenation.reset.calibration={data}",
        "rejuvenation.reset.positions=2", "rejuvenation.monitors.probe_set.every=1",
    ]  # fmt: skip
    run = Job(directory, models / "sft", models / "data", steps, [*repair, *overrides], env=ON_GPU)
    return run.run(timeout=240)


def test_disk_mode_with_the_reset_measured_on_the_gpu(models: Path, tmp_path: Path) -> None:
    run = job(models, tmp_path / "job", "rejuvenation.monitors.sharpness=true", *STANDING_STILL)
    (made,) = (run.directory / "checkpoints" / "rejuvenated").glob("sft-*")
    start, actor = load_file(made / "model.safetensors"), run.final_weights()
    assert [name for name, value in start.items() if not torch.equal(actor[f"0.{name}"].cpu(), value)] == []
    measured = json.loads((made / "rejuvenation.json").read_text())["reset"]
    assert measured["neurons"] > 0
    assert measured["selection"]["device"].startswith("cuda")
    # Of float32 on two processors.
    assert run.log_prob_gap(1) < 1e-4
    seen = plasticity(run.metrics[2])
    assert seen["update_ratio"] == 0 < seen["drift_base"]
    assert seen["probe/nll"] > 0
    assert abs(seen["grad_norm"] / run.metrics[2]["actor/grad_norm"] - 1) < 1e-5
    assert "off from step" not in run.log


def test_worker_mode_trains_to_the_same_bits_with_and_without_monitors(models: Path, tmp_path: Path) -> None:
    settings = ["rejuvenation.mode=worker", "trainer.save_freq=2", *DETERMINISTIC]
    watched, alone = (
        job(models, tmp_path / on, f"rejuvenation.monitors.enabled={on}", *settings) for on in ("true", "false")
    )
    expected = alone.final_weights()
    assert [name for name, value in watched.final_weights().items() if not torch.equal(value, expected[name])] == []
    assert watched.metrics[0]["training/rejuvenation/reset_neurons"] > 0
    assert plasticity(watched.metrics[2])["update_ratio"] > 0 < plasticity(watched.metrics[2])["probe/nll"]
    assert plasticity(alone.metrics[2]) == {}
    assert "off from step" not in watched.log
