# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Worker mode inside real verl jobs: actor, rollout, reference and critic start from what disk mode would write."""

import json
import re
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from checkpoints import weights
from safetensors.torch import save_file
from verl_jobs.job import Job, plasticity

from rejuv_plugin.checkpoint import apply, plan_fusion, plan_reset
from rejuv_plugin.checkpoint.reset_file import load, save
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.neurons.modules import modules_of
from rejuv_plugin.neurons.reset_set import Chosen, ResetSet

ALPHA = 0.4


def settings(models: Path, **more: object) -> list[str]:
    return [
        "+rejuvenation=default", f"rejuvenation.base_path={models}/base", "rejuvenation.mode=worker",
        f"rejuvenation.fusion.alpha={ALPHA}",
        *(f"rejuvenation.{key.replace('__', '.')}={value}" for key, value in more.items()),
    ]  # fmt: skip


def expected_start(models: Path, set_path: Path, directory: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """What `rejuv apply` writes for the same settings: tensors and manifest."""
    plan = plan_fusion(str(models / "base"), str(models / "sft"), FusionConfig(alpha=ALPHA))
    manifest = apply(plan_reset(plan, load(set_path, "set"), 1.0, "set"), directory)
    return weights(directory), manifest


def whole(job: Job, step: int, role: str = "actor") -> dict[str, torch.Tensor]:
    """Each tensor of a checkpoint, put together from the ranks' rows."""
    shards: dict[str, list[torch.Tensor]] = {}
    for name, value in job.final_weights(step, role).items():
        shards.setdefault(name.partition(".")[2], []).append(value)
    return {name: torch.cat(parts) if parts[0].dim() else parts[0] for name, parts in shards.items()}


def assert_start(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(expected) <= set(found)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_two_fsdp2_workers_start_from_a_given_set(models: Path, tmp_path: Path) -> None:
    plan = plan_fusion(str(models / "base"), str(models / "sft"), FusionConfig())
    modules = modules_of(plan.sft.config, plan.sft.shapes, "--sft")
    chosen = {m.name: Chosen(m.kind, m.count, tuple(range(0, m.count, 5))) for m in modules}
    save(ResetSet("qwen2", chosen), tmp_path / "set.json")
    job = Job(tmp_path / "job", models / "sft", models / "data", steps=1)
    job.overrides = [
        *settings(models, reset__set_path=tmp_path / "set.json"),
        "trainer.n_gpus_per_node=2", "trainer.save_freq=1",
        "actor_rollout_ref.actor.optim.lr=0", "actor_rollout_ref.actor.use_kl_loss=True",
    ]  # fmt: skip
    job.run()
    expected, manifest = expected_start(models, tmp_path / "set.json", tmp_path / "expected")
    # With a learning rate of 0 the saved actor is still the start.
    assert_start(whole(job, 1), expected)
    assert job.log_prob_gap(1) < 1e-5  # of the actor and the rollout, which loaded the SFT checkpoint and was sent this
    assert abs(job.metrics[1]["actor/kl_loss"]) < 1e-6  # of the actor and its reference, in the same weights
    assert {file.name for file in (job.directory / "checkpoints").rglob("*.safetensors")} <= {"plasticity.safetensors"}
    started = job.metrics[0]
    assert started["training/rejuvenation/fused_parameters"] == manifest["parameters_fused"]
    assert started["training/rejuvenation/reset_neurons"] == manifest["reset"]["neurons"]
    assert started["training/rejuvenation/drift_sft"] == manifest["drift_from_base"]["sft"]["relative_l2"]
    assert started["training/rejuvenation/drift_start"] == manifest["drift_from_base"]["output"]["relative_l2"]
    assert "rejuvenation: loaded by 2 workers" in job.log
    (record,) = (job.directory / "checkpoints").glob("rejuvenation-*.json")
    said = json.loads(record.read_text())
    assert record.stem == f"rejuvenation-{manifest['key'][:16]}"
    same = ("key", "settings", "tensors", "parameters_fused", "reset", "drift_from_base")
    assert {entry: said[entry] for entry in same} == {entry: manifest[entry] for entry in same}


def test_workers_find_the_neurons_and_a_resumed_run_keeps_them(models: Path, tmp_path: Path) -> None:
    """PPO on two FSDP1 workers, with the SFT model as the reference and a rejuvenated critic; then one step more."""
    data = tiny.save_calibration(tmp_path / "calibration.jsonl", rows=3)
    job = Job(tmp_path / "job", models / "sft", models / "data", steps=1)
    job.overrides = [
        *settings(models, ref="sft", critic=True),
        "rejuvenation.reset.ratio=0.05", f"rejuvenation.reset.calibration={data}", "rejuvenation.reset.positions=2",
        "algorithm.adv_estimator=gae", "critic.ppo_micro_batch_size_per_gpu=8", "critic.optim.lr=0",
        f"critic.model.path={models}/sft", f"critic.model.tokenizer_path={models}/sft",
        "actor_rollout_ref.actor.strategy=fsdp", "actor_rollout_ref.ref.strategy=fsdp", "critic.strategy=fsdp",
        "actor_rollout_ref.actor.optim.lr=0", "actor_rollout_ref.actor.use_kl_loss=True",
        "trainer.n_gpus_per_node=2", "trainer.save_freq=1", "trainer.resume_mode=auto",
    ]  # fmt: skip
    job.run()
    kept = job.directory / "checkpoints" / "global_step_1" / "rejuvenation_reset_set.json"
    expected, manifest = expected_start(models, kept, tmp_path / "expected")
    assert manifest["reset"]["neurons"] > 0
    assert_start(whole(job, 1), expected)
    assert_start(whole(job, 1, "critic"), {n: t for n, t in expected.items() if not n.startswith("lm_head")})
    assert job.metrics[1]["actor/kl_loss"] > 1e-4
    assert job.log_prob_gap(1) < 1e-5
    assert job.metrics[0]["timing_s/rejuvenation_search"] > 0
    assert job.metrics[0]["training/rejuvenation/entropy_base"] > 0
    seen = plasticity(job.metrics[1])
    assert seen["probe/nll"] > 0, "the calibration data are the probe set"
    assert seen["probe/effective_rank_layers/q50"] > 1
    assert "off from step" not in job.log

    # Nobody has the set but the checkpoint, and nobody could find it again.
    for found in (job.directory / "checkpoints" / "rejuvenated").glob("reset-set-*"):
        found.unlink()
    first, job.steps = job.metrics, 2
    job.run()
    assert "timing_s/rejuvenation_search" not in job.metrics[1]
    assert sorted(job.metrics) == [1, 2]  # verl begins its file of metrics anew
    assert_start(whole(job, 2), expected)
    assert job.metrics[2]["actor/kl_loss"] == pytest.approx(first[1]["actor/kl_loss"], rel=0.5)


def test_a_rank_that_cannot_load_ends_the_job_with_its_name(models: Path, tmp_path: Path) -> None:
    """One line that tells what, where and who; no hang."""
    shutil.copytree(models / "base", tmp_path / "base")
    broken = weights(tmp_path / "base")
    broken["model.layers.1.mlp.up_proj.weight"][3, 3] = torch.nan
    save_file(broken, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    job = Job(tmp_path / "job", models / "sft", models / "data", steps=1)
    job.overrides = [*settings(models), f"rejuvenation.base_path={tmp_path}/base", "trainer.n_gpus_per_node=2"]
    assert job.wait(job.start(), timeout=240) == 1
    said = r"up_proj\.weight: expected finite weights in .*, got NaN or infinity \(on rank [01] of 2, \S+\)\. Fix: "
    assert re.search(said, job.log)
