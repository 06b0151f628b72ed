# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``rejuvenation.fusion.alpha=auto`` inside a real verl job."""

import json
from pathlib import Path

from verl_jobs.job import Job


def test_a_job_chooses_its_alpha(models: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, models / "sft", models / "data", steps=1)
    job.overrides = [
        "+rejuvenation=default", f"rejuvenation.base_path={models}/base",
        "rejuvenation.fusion.alpha=auto", "rejuvenation.tune.alphas='0.3,0.5,0.7'", "rejuvenation.tune.count=8",
        "trainer.save_freq=1",
    ]  # fmt: skip
    job.run()
    checkpoints = job.directory / "checkpoints"
    (found,) = (checkpoints / "rejuvenated").glob("tuning-*/tuning.json")
    said = json.loads(found.read_text())
    alpha = said["choice"]["alpha"]
    assert [row["alpha"] for row in said["trace"]] == [0.3, 0.5, 0.7]
    assert (said["prompts"]["group"], said["prompts"]["max_response"]) == (4, 8)
    (made,) = (checkpoints / "rejuvenated").glob("sft-*")
    assert json.loads((made / "rejuvenation.json").read_text())["settings"]["fusion"]["alpha"] == alpha
    assert job.metrics[0]["training/rejuvenation/alpha"] == alpha
    record = json.loads((checkpoints / "global_step_1" / "rejuvenation_start.json").read_text())
    assert record["tuned"]["alpha"] == alpha
