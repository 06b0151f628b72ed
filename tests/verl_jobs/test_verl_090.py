# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The published verl 0.9.0, unpatched: a whole job, with the plugin asked for."""

import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from verl_jobs.job import Job, plasticity
from verl_versions.published import packages


def test_rejuvenated_monitored_saved(models: Path, tmp_path: Path) -> None:
    verl = packages("0.9.0")
    data = Path(shutil.copytree(models / "data", tmp_path / "data"))
    with (data / "reward.py").open("a") as reward:
        reward.write("import verl\nprint('workers have', verl.__file__)\n")
    overrides = ["+rejuvenation=default", f"rejuvenation.base_path={models}/base", "trainer.save_freq=2"]
    env = {"PYTHONPATH": os.pathsep.join(filter(None, [str(verl), os.environ.get("PYTHONPATH")]))}
    job = Job(tmp_path, models / "sft", data, steps=2, overrides=overrides, env=env).run()
    assert f"workers have {verl}/verl/__init__.py" in job.log
    (start,) = (tmp_path / "checkpoints" / "rejuvenated").glob("*/model.safetensors")
    before, after = load_file(start), job.final_weights()
    assert [name for name, value in before.items() if torch.equal(value, after[f"0.{name}"])] == []
    assert job.metrics[0]["training/rejuvenation/alpha"] == 0.5
    for step in (1, 2):
        assert job.log_prob_gap(step) < 1e-3, "rollout and actor have the same weights"
        assert plasticity(job.metrics[step])["update_ratio"] > 0
