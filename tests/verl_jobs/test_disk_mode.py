# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Rejuvenation inside real verl jobs: what it changes, and that it changes nothing else."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file
from verl_jobs.job import (
    BOTH,
    CPU_ALONE,
    DETERMINISTIC,
    STANDING_STILL,
    Job,
    assert_asynchronous,
    plasticity,
    without_timings,
)

from rejuv_plugin.monitors.history import read_steps


def plain(models: Path, directory: Path, *overrides: str, plugins: str = BOTH) -> Job:
    job = Job(directory, models / "sft", models / "data", plugins=plugins)
    job.overrides = [*DETERMINISTIC, "trainer.save_freq=3", *overrides]
    return job


def rejuvenated(models: Path, **settings: object) -> list[str]:
    return [
        "+rejuvenation=default",
        f"rejuvenation.base_path={models}/base",
        *(f"rejuvenation.{key.replace('__', '.')}={value}" for key, value in settings.items()),
    ]


@pytest.fixture(scope="module")
def without_plugin(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    return plain(models, tmp_path_factory.mktemp("cpu_alone"), plugins=CPU_ALONE).run()


def assert_same_run(one: Job, other: Job) -> None:
    weights, others = one.final_weights(), other.final_weights()
    assert weights.keys() == others.keys()
    assert [name for name in weights if not torch.equal(weights[name], others[name])] == []
    metrics = without_timings(other.metrics)
    assert without_timings(one.metrics) == {step: metrics[step] for step in one.metrics}


def test_loaded_but_not_asked_for_changes_no_bit(models: Path, without_plugin: Job, tmp_path: Path) -> None:
    loaded = plain(models, tmp_path).run()
    assert_same_run(without_plugin, loaded)
    assert loaded.metrics.keys() == without_plugin.metrics.keys()
    assert "rejuvenation: " not in loaded.log


def test_alpha_one_is_the_plain_sft_start(models: Path, without_plugin: Job, tmp_path: Path) -> None:
    """All monitors are on, and have seen all of it, and changed nothing."""
    probe = tiny.save_calibration(tmp_path / "probe.jsonl")
    monitors = {"monitors__probe_set__data": probe, "monitors__probe_set__every": 2}
    monitored = plain(models, tmp_path, *rejuvenated(models, fusion__alpha=1, **monitors)).run()
    assert_same_run(without_plugin, monitored)
    assert "off from step" not in monitored.log
    steps = read_steps(tmp_path / "checkpoints" / "plasticity.jsonl", "run")
    assert [step["step"] for step in steps] == [1, 2, 3]
    for step in (1, 2, 3):
        metrics = monitored.metrics[step]
        ours = {name: value for name, value in metrics.items() if "/plasticity/" in name}
        assert {name: value for name, value in steps[step - 1]["metrics"].items() if "/plasticity/" in name} == ours
        assert ours["actor/plasticity/grad_norm"] == pytest.approx(metrics["actor/grad_norm"], rel=1e-5)
        assert ours["actor/plasticity/update_ratio"] > 0
        assert ours["actor/plasticity/entropy"] == pytest.approx(metrics["actor/entropy"], rel=1e-4)
        assert ("actor/plasticity/probe/nll" in ours) == (step < 3), "at the first step, and every second"
        assert 0 <= ours["training/plasticity/pass_rate"] <= 1


def test_the_run_above_trained_and_synchronised(models: Path, without_plugin: Job) -> None:
    """So that the equalities above compare something: weights moved, and rollout and actor agree after each update."""
    start = load_file(models / "sft" / "model.safetensors")
    end = without_plugin.final_weights()
    moved = [name for name, value in start.items() if not torch.equal(value, end[f"0.{name}"])]
    assert len(moved) == len(start)
    assert sorted(without_plugin.metrics) == [1, 2, 3]
    for step, row in without_plugin.metrics.items():
        assert without_plugin.log_prob_gap(step) < 1e-5
        assert row["actor/grad_norm"] > 0


def fused_weights(job: Job) -> dict[str, torch.Tensor]:
    (cached,) = (job.directory / "checkpoints" / "rejuvenated").glob("sft-*")
    return load_file(cached / "model.safetensors")


def test_ppo_with_an_sft_reference_and_a_rejuvenated_critic(models: Path, tmp_path: Path) -> None:
    """FSDP1, GAE. With alpha 0 the actor starts at the base, so a KL at its start can only be with the SFT model."""
    job = Job(tmp_path, models / "sft", models / "data", steps=2)
    job.overrides = [
        *rejuvenated(models, fusion__alpha=0, ref="sft", critic="true"),
        "algorithm.adv_estimator=gae", f"critic.model.path={models}/sft",
        "critic.optim.lr=0", "critic.ppo_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.actor.strategy=fsdp", "critic.strategy=fsdp",
        "actor_rollout_ref.actor.use_kl_loss=True", "trainer.critic_warmup=2", "trainer.save_freq=1",
    ]  # fmt: skip
    job.run()
    base = load_file(models / "base" / "model.safetensors")
    # Step 1 is the critic's warm-up, so its saved actor is still the start.
    start = job.final_weights(step=1)
    assert all(torch.equal(start[f"0.{name}"], value) for name, value in base.items())
    assert job.metrics[2]["actor/kl_loss"] > 1e-4
    # With a learning rate of 0 the critic stays what it started from: the rejuvenated trunk under a new head.
    critic = job.final_weights(step=2, role="critic")
    assert all(torch.equal(critic[f"0.{name}"], value) for name, value in base.items() if name.startswith("model."))
    assert "critic/vf_loss" in job.metrics[1]
    assert "KL reference: sft; critic: rejuvenated" in job.log
    # In the critic's warm-up the actor stands still.
    assert plasticity(job.metrics[1])["update_ratio"] == 0
    assert "entropy" not in plasticity(job.metrics[1])
    seen = plasticity(job.metrics[2])
    assert seen["grad_norm"] == pytest.approx(job.metrics[2]["actor/grad_norm"], rel=1e-5)
    assert seen["entropy"] == pytest.approx(job.metrics[2]["actor/entropy"], rel=1e-4)
    assert seen["drift_base"] == seen["drift_start"] == seen["update_ratio"] > 0, "alpha 0: the start is the base"


def test_lora_trains_on_the_fused_base(models: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, models / "sft", models / "data", steps=2)
    job.overrides = [
        *rejuvenated(models, fusion__alpha=0.4),
        "actor_rollout_ref.model.lora_rank=4", "actor_rollout_ref.model.lora_alpha=8",
        "actor_rollout_ref.rollout.load_format=safetensors", "actor_rollout_ref.actor.use_kl_loss=True",
        "trainer.save_freq=2",
    ]  # fmt: skip
    job.run()
    fused, saved = fused_weights(job), job.final_weights()
    plain = {name.removeprefix("0.base_model.model.").replace(".base_layer.", "."): v for name, v in saved.items()}
    assert [name for name in fused if not torch.equal(plain[name], fused[name])] == []
    assert max(job.log_prob_gap(step) for step in (1, 2)) < 1e-5
    assert job.metrics[1]["actor/kl_loss"] == pytest.approx(0, abs=1e-7), "the reference is the start"
    assert job.metrics[2]["actor/kl_loss"] > 0
    (cached,) = (tmp_path / "checkpoints" / "rejuvenated").glob("sft-*")
    manifest, summary = json.loads((cached / "rejuvenation.json").read_text()), job.metrics[0]
    assert summary["training/rejuvenation/alpha"] == manifest["settings"]["fusion"]["alpha"] == 0.4
    drift_sft, drift_start = (summary[f"training/rejuvenation/drift_{of}"] for of in ("sft", "start"))
    assert drift_start == pytest.approx(0.4 * drift_sft, rel=1e-3)
    assert "rejuvenation: made in" in job.log
    assert "rejuvenation: monitor weights is off from step 1 on: rank 0: NotImplementedError" in job.log
    seen = plasticity(job.metrics[2])
    assert seen["grad_norm"] == pytest.approx(job.metrics[2]["actor/grad_norm"], rel=1e-5)
    assert "drift_base" not in seen


def test_rollouts_on_servers_of_their_own_from_an_alpha_that_the_job_chose(models: Path, tmp_path: Path) -> None:
    """The other asynchronous trainer: test_neuron_reset.py."""
    job = Job(tmp_path, models / "sft", models / "data", steps=2)
    job.overrides = [
        *rejuvenated(models, fusion__alpha="auto", tune__alphas="'0.3,0.5,0.7'", tune__count=8), *STANDING_STILL,
        "trainer.v1.trainer_mode=separate_async", "trainer.v1.separate_async.parameter_sync_step=1",
        "actor_rollout_ref.rollout.checkpoint_engine.backend=gloo",
        "actor_rollout_ref.rollout.nnodes=1", "actor_rollout_ref.rollout.n_gpus_per_node=1",
    ]  # fmt: skip
    job.run()
    fused, saved = fused_weights(job), job.final_weights()
    assert [name for name in fused if not torch.equal(saved[f"0.{name}"], fused[name])] == []
    assert_asynchronous(job)

    checkpoints = job.directory / "checkpoints"
    (found,) = (checkpoints / "rejuvenated").glob("tuning-*/tuning.json")
    said = json.loads(found.read_text())
    alpha = said["choice"]["alpha"]
    assert [row["alpha"] for row in said["trace"]] == [0.3, 0.5, 0.7]
    assert (said["prompts"]["group"], said["prompts"]["max_response"]) == (4, 8)
    (made,) = (checkpoints / "rejuvenated").glob("sft-*")
    assert json.loads((made / "rejuvenation.json").read_text())["settings"]["fusion"]["alpha"] == alpha
    assert job.metrics[0]["training/rejuvenation/alpha"] == alpha
    record = json.loads((checkpoints / "global_step_2" / "rejuvenation_start.json").read_text())
    assert record["tuned"]["alpha"] == alpha
