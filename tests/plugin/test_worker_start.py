# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Worker mode up to where the workers start: what the trainer decides, and what it sends."""

import pickle
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import tiny
from checkpoints import edit_json
from omegaconf import OmegaConf

from rejuv_plugin.checkpoint import plan_fusion
from rejuv_plugin.checkpoint.reset_file import save
from rejuv_plugin.config import defaults
from rejuv_plugin.errors import InputError
from rejuv_plugin.integrations.verl import disk_mode, run_record
from rejuv_plugin.integrations.verl.job import job_of
from rejuv_plugin.integrations.verl.worker_mode import mode
from rejuv_plugin.neurons.modules import modules_of
from rejuv_plugin.neurons.reset_set import Chosen, ResetSet
from rejuv_plugin.probe.measure import selection_settings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    base = tiny.save_base(tmp_path / "base")
    tiny.save_sft(tmp_path / "sft", base, scale=0.05)
    tiny.save_calibration(tmp_path / "data.jsonl")
    return tmp_path


def config_of(root: Path, mode: str = "worker", **settings: Any) -> Any:
    group = {**defaults(), "base_path": str(root / "base"), "mode": mode}
    group["reset"] = group["reset"] | settings.pop("reset", {})
    return OmegaConf.create(
        {
            "trainer": {"use_v1": True, "device": "cpu", "default_local_dir": str(root / "run"), "resume_mode": "auto"},
            "data": {"train_files": [], "prompt_key": "prompt", "max_response_length": 20},
            "algorithm": {"use_kl_in_reward": False},
            "actor_rollout_ref": {
                "model": {"path": str(root / "sft"), "external_lib": None, "lora_rank": 0},
                "actor": {"use_kl_loss": False, "strategy": "fsdp2"},
            },
            "critic": {"model": {"path": "critic"}},
            "rejuvenation": group | settings,
        }
    )


def begun(config: Any) -> mode.WorkerMode:
    job = job_of(config)
    assert job is not None
    return mode.begin(job, config)


def a_set(root: Path, step: int = 3) -> ResetSet:
    plan = plan_fusion(str(root / "base"), str(root / "sft"), job_of(config_of(root)).settings.fusion)
    modules = modules_of(plan.sft.config, plan.sft.shapes, "--sft")
    return ResetSet("qwen2", {m.name: Chosen(m.kind, m.count, tuple(range(0, m.count, step))) for m in modules})


def test_it_is_the_start_that_disk_mode_makes(root: Path) -> None:
    """So that a run may go on in the other mode."""
    save(a_set(root), root / "set.json")
    for reset in ({}, {"set_path": str(root / "set.json")}):
        ours = begun(config_of(root, reset=reset))
        assert not list((root / "run").rglob("*.safetensors"))
        config = config_of(root, "disk", reset=reset, cache_dir=str(root / "cache"))
        job = job_of(config)
        assert job is not None
        assert ours.key == disk_mode.apply(job, config).key


def test_the_model_path_stays_and_the_critics_goes_where_it_is_asked_to(root: Path) -> None:
    config = config_of(root)
    begun(config)
    assert (config.actor_rollout_ref.model.path, config.critic.model.path) == (str(root / "sft"), "critic")
    config = config_of(root, critic=True)
    begun(config)
    assert config.critic.model.path == str(root / "sft")


def test_what_a_worker_class_carries_is_whole_after_the_journey(root: Path) -> None:
    """Classes travel by value: with the neurons of the set, and without a file that only this node has."""
    import ray
    from verl.workers.engine_workers import ActorRolloutRefWorker

    save(a_set(root), root / "set.json")
    outcome = begun(config_of(root, reset={"set_path": str(root / "set.json")}))
    (root / "set.json").unlink()
    extended = outcome.workers({"actor": ray.remote(ActorRolloutRefWorker)})["actor"].__ray_actor_class__
    start = pickle.loads(cloudpickle.dumps(extended)).rejuvenation_start
    plan = start.with_reset(start.plan(), start.chosen)
    assert plan.reset.chosen.digest == a_set(root).digest
    assert plan.parameters_reset > 0


@pytest.mark.parametrize("what", ["configuration", "weights"])
def test_another_checkpoint_at_the_same_path_on_a_node_is_refused(root: Path, what: str) -> None:
    start = begun(config_of(root))._start
    start.plan()
    if what == "configuration":
        edit_json(root / "base" / "config.json", rope_theta=5.0)
    else:
        tiny.save_base(root / "base", seed=7)
    with pytest.raises(InputError, match="on every node the checkpoints that the trainer's node has") as caught:
        start.plan()
    assert str(root / "base") in str(caught.value)


@pytest.mark.parametrize("kept_in", ["cache", "checkpoint"])
def test_neurons_that_an_earlier_run_found_are_not_looked_for_again(root: Path, kept_in: str) -> None:
    reset = {"ratio": 0.05, "calibration": str(root / "data.jsonl"), "positions": 2}
    first = begun(config_of(root, reset=reset))
    assert first.key is None
    assert first._start.chosen is None
    assert len(first._start.search.examples) == 4
    found = ResetSet(
        "qwen2", a_set(root).modules, selection_settings(first._job.settings.reset), first._start.search.digests
    )
    first._take(found)
    assert first.keep is found
    if kept_in == "checkpoint":
        run_record.write(str(root / "run" / "global_step_1"), first.key, first.keep)
        (root / "run" / "latest_checkpointed_iteration.txt").write_text("1")
        for cached in (root / "run" / "rejuvenated").glob("reset-set-*"):
            cached.unlink()
    again = begun(config_of(root, reset=reset))
    assert again._start.search is None
    assert again.key == first.key
    assert again._start.chosen.digest == again.keep.digest == found.digest
    # Another setting is another set; and in a checkpoint of this run, another start.
    other = config_of(root, reset=reset | {"positions": 3})
    if kept_in == "cache":
        assert begun(other)._start.search is not None
    else:
        with pytest.raises(
            InputError, match=r"^rejuvenation\.reset\.positions: expected 2, as in the resumed run, got 3"
        ):
            begun(other)


def test_a_resumed_run_must_start_from_the_same(root: Path) -> None:
    run_record.write(str(root / "run" / "global_step_1"), "a" * 64)
    (root / "run" / "latest_checkpointed_iteration.txt").write_text("1")
    with pytest.raises(InputError, match="a start from rejuvenated checkpoint aaaaaaaaaaaaaaaa, as in"):
        begun(config_of(root))


def test_an_adapter_is_refused(root: Path) -> None:
    (root / "sft" / "model.safetensors").unlink()
    (root / "sft" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    (root / "sft" / "adapter_model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError) as caught:
        begun(config_of(root))
    assert "adapter" in str(caught.value)
