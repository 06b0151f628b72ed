# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The reset in a verl job, up to where the workers would start: real Ray, no trainer."""

import gc
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import tiny
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from rejuv_plugin.checkpoint import plan_reset, read_inputs
from rejuv_plugin.checkpoint.provenance import content_key
from rejuv_plugin.config import defaults
from rejuv_plugin.errors import InputError
from rejuv_plugin.integrations.verl import disk_mode, planning, run_record
from rejuv_plugin.integrations.verl.cpu import fork_server
from rejuv_plugin.integrations.verl.driver_check import checked
from rejuv_plugin.integrations.verl.job import job_of
from rejuv_plugin.neurons.reset_set import from_json


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    # As in laptop mode, Ray has GPUs by name only, and its workers are forked: each task here has one of its own.
    forked = {"py_executable": fork_server.py_executable()}
    options = {"include_dashboard": False, "log_to_driver": False, "runtime_env": forked}
    ray.init(address="local", num_cpus=2, num_gpus=1, **options)
    yield
    ray.shutdown()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    base = tiny.save_base(tmp_path / "base")
    tiny.save_sft(tmp_path / "sft", base, scale=0.05)
    tiny.save_data(tmp_path, train=24)
    tiny.save_calibration(tmp_path / "data.jsonl")
    return tmp_path


def config_of(root: Path, **reset: Any) -> Any:
    group = {**defaults(), "base_path": str(root / "base")}
    group["reset"] = group["reset"] | reset
    return OmegaConf.create(
        {
            "trainer": {
                "use_v1": True,
                "device": "cpu",
                "default_local_dir": str(root / "run"),
                "resume_mode": "disable",
            },
            "data": {
                "train_files": [str(root / "train.parquet")],
                "prompt_key": "prompt",
                "max_response_length": 200,
            },
            "algorithm": {"use_kl_in_reward": False},
            "actor_rollout_ref": {
                "model": {"path": str(root / "sft"), "external_lib": None, "lora_rank": 0},
                "actor": {"use_kl_loss": False},
            },
            "rejuvenation": group,
        }
    )


def models_here() -> set[int]:
    return {id(o) for o in gc.get_objects() if type(o).__name__ == "Qwen2ForCausalLM"}


def applied(config: Any) -> disk_mode.Outcome:
    job = job_of(config)
    assert job is not None
    return disk_mode.apply(job, config)


def test_the_job_trains_from_the_reset_checkpoint(root: Path, capsys: pytest.CaptureFixture) -> None:
    config = config_of(root, ratio=0.05, calibration=str(root / "data.jsonl"), positions=2)
    models_before = models_here()
    outcome = applied(config)
    made = Path(config.actor_rollout_ref.model.path)
    manifest = json.loads((made / "rejuvenation.json").read_text())
    assert outcome.metrics["training/rejuvenation/reset_share"] == manifest["reset"]["share"] > 0.05
    assert outcome.metrics["training/rejuvenation/omega"] == 1.0
    assert outcome.metrics["training/rejuvenation/reset_neurons"] == manifest["reset"]["neurons"]
    shown = capsys.readouterr().out
    assert f"reset of {manifest['reset']['neurons']:,} neurons" in shown
    assert "token entropy on the calibration data" in shown
    entropy = {side: outcome.metrics[f"training/rejuvenation/entropy_{side}"] for side in ("base", "sft", "start")}
    assert all(value > 0 for value in entropy.values())
    assert len(set(entropy.values())) == 3
    # The models were in a process that is gone; those of another test may not be.
    assert not models_here() - models_before
    (file,) = (root / "run" / "rejuvenated").glob("reset-set-*.json")
    chosen = from_json(json.loads(file.read_text()), "set")
    module = "model.layers.1.self_attn.k_proj"
    rows = list(chosen.modules[module].indices)
    start, base = (load_file(path / "model.safetensors")[f"{module}.weight"] for path in (made, root / "base"))
    assert rows
    assert torch.equal(start[rows], base[rows])

    again = config_of(root, ratio=0.05, calibration=str(root / "data.jsonl"), positions=2)
    assert applied(again).metrics["training/rejuvenation/from_cache"] == 1.0
    assert again.actor_rollout_ref.model.path == str(made)

    reused = config_of(root, set_path=str(file))
    applied(reused)
    assert reused.actor_rollout_ref.model.path == str(made)


def resuming(root: Path, reset: dict[str, Any]) -> Any:
    config = config_of(root, **reset)
    config.trainer.resume_mode = "auto"
    return config


@pytest.mark.parametrize("sampled", [False, True])
def test_a_resumed_run_has_the_neurons_that_it_started_with(
    root: Path, capsys: pytest.CaptureFixture, sampled: bool
) -> None:
    """Whatever became of the cache: found anew they may be others, and the run would be refused."""
    reset: dict[str, Any] = {"ratio": 0.05, "positions": 2}
    reset |= {"examples": 24} if sampled else {"calibration": str(root / "data.jsonl")}
    first = applied(config_of(root, **reset))
    assert first.keep is not None
    # Neurons that this machine would not find.
    module = next(name for name, chosen in first.keep.modules.items() if chosen.indices)
    chosen = first.keep.modules[module]
    modules = {**first.keep.modules, module: replace(chosen, indices=chosen.indices[1:])}
    kept = replace(first.keep, modules=modules)
    plan = planning.plan_of(job_of(config_of(root)))
    key = content_key(plan_reset(plan, kept, 1.0, "set"), read_inputs(plan))
    run_record.write(str(root / "run" / "global_step_2"), key, kept)
    (root / "run" / "latest_checkpointed_iteration.txt").write_text("2")
    shutil.rmtree(root / "run" / "rejuvenated")

    capsys.readouterr()
    resumed = applied(resuming(root, reset))
    assert (resumed.key, resumed.keep) == (key, kept)
    assert "neurons as found when the run began" in capsys.readouterr().out
    assert ("training/rejuvenation/entropy_start" in resumed.metrics) != sampled
    assert not list((root / "run" / "rejuvenated").glob("calibration-*"))
    with pytest.raises(InputError, match=r"^rejuvenation.reset.positions: expected 2, as in the resumed run, got 3"):
        applied(resuming(root, reset | {"positions": 3}))
    if not sampled:
        (root / "data.jsonl").write_text(json.dumps({"prompt": "1+1=", "response": "two it is"}) + "\n")
        with pytest.raises(InputError, match=r"^rejuvenation.reset.calibration: expected '[0-9a-f]{64}', as in the re"):
            applied(resuming(root, reset))


def test_without_calibration_data_the_sft_model_answers_prompts_of_the_training_set(root: Path) -> None:
    config = config_of(root, ratio=0.05, examples=24, positions=2)
    outcome = applied(config)
    (file,) = (root / "run" / "rejuvenated").glob("calibration-*.jsonl")
    assert 0 < len(file.read_text().splitlines()) <= 24
    assert outcome.metrics["training/rejuvenation/reset_share"] > 0.05
    # The input of the cache's key is the answers' content: the file by hand gives the same checkpoint.
    by_hand = config_of(root, ratio=0.05, positions=2, calibration=str(file))
    applied(by_hand)
    assert by_hand.actor_rollout_ref.model.path == config.actor_rollout_ref.model.path


def test_what_is_wrong_with_data_or_device_is_one_line(root: Path) -> None:
    (root / "data.jsonl").write_text(json.dumps({"prompt": "1", "response": "2"}) + "\n")
    with pytest.raises(InputError, match=r"^rejuvenation.reset.calibration: expected at least 50 response tokens"):
        applied(config_of(root, ratio=0.05, calibration=str(root / "data.jsonl"), positions=50))
    with pytest.raises(InputError, match=r"^rejuvenation.reset.device: expected a GPU in the Ray cluster"):
        applied(config_of(root, ratio=0.05, calibration=str(root / "data.jsonl"), positions=2, device="cuda"))


def test_without_a_ratio_the_job_is_fusion_alone(root: Path) -> None:
    config = config_of(root)
    outcome = applied(config)
    assert not any("reset" in name for name in outcome.metrics)
    assert not list((root / "run" / "rejuvenated").glob("reset-set-*"))


@pytest.mark.parametrize(
    ("reset", "says"),
    [
        ({"ratio": 0.05, "calibration": "gone.jsonl"}, "rejuvenation.reset.calibration: expected a .parquet or .jsonl"),
        ({"ratio": 0.05}, "data.train_files: expected a .parquet or .jsonl file"),
        ({"set_path": "gone.json"}, "rejuvenation.reset.set_path: expected a readable reset set"),
        ({"ratio": 0.05, "calibration": "data.jsonl", "include": "x"}, "rejuvenation.reset.include: "),
    ],
)
def test_bad_reset_settings_end_the_command_before_ray(
    root: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, reset: dict, says: str
) -> None:
    monkeypatch.chdir(root)
    (root / "train.parquet").unlink()
    with pytest.raises(SystemExit) as caught:
        checked(lambda config: None)(config_of(root, **reset))
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"rejuvenation: {says}")
    assert not (root / "run").exists()
