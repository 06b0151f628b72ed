# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The neuron reset inside a real verl job, of the trainer whose rollouts go on beside it and are interrupted by it."""

import json
from pathlib import Path

import tiny
import torch
from safetensors.torch import load_file
from verl_jobs.job import STANDING_STILL, Job, assert_asynchronous


def test_the_actor_starts_with_the_bases_neurons(models: Path, tmp_path: Path) -> None:
    data = tiny.save_calibration(tmp_path / "calibration.jsonl")
    job = Job(tmp_path / "job", models / "sft", models / "data", steps=2)
    job.overrides = [
        "+rejuvenation=default", f"rejuvenation.base_path={models}/base",
        "rejuvenation.reset.ratio=0.05", f"rejuvenation.reset.calibration={data}", "rejuvenation.reset.positions=2",
        "rejuvenation.reset.include='*.k_proj *.v_proj *.down_proj'",
        "trainer.v1.trainer_mode=colocate_async", *STANDING_STILL,
    ]  # fmt: skip
    job.run()
    cache = job.directory / "checkpoints" / "rejuvenated"
    (made,), (chosen_file,) = cache.glob("sft-*"), cache.glob("reset-set-*.json")
    chosen = json.loads(chosen_file.read_text())["modules"]
    assert {name.rpartition(".")[2] for name in chosen} == {"k_proj", "v_proj", "down_proj"}
    # With a learning rate of 0 the saved actor is still the start.
    actor, base = job.final_weights(), load_file(models / "base" / "model.safetensors")
    assert all(torch.equal(actor[f"0.{name}"], value) for name, value in load_file(made / "model.safetensors").items())
    for name, module in chosen.items():
        now, before = actor[f"0.{name}.weight"], base[f"{name}.weight"]
        if module["kind"] == "column":
            now, before = now.T, before.T
        same = (now == before).all(1).nonzero().flatten().tolist()
        assert same == module["indices"] != []
    manifest = json.loads((made / "rejuvenation.json").read_text())
    assert job.metrics[0]["training/rejuvenation/reset_share"] == manifest["reset"]["share"] > 0
    assert "rejuvenation: made in" in job.log
    assert_asynchronous(job)
