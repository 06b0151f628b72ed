# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``fusion.alpha=auto`` in a verl job, up to where the workers would start: real Ray, no trainer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import tiny
from checkpoints import snapshot
from omegaconf import OmegaConf

from rejuv_plugin.config import TuningConfig, defaults, from_mapping
from rejuv_plugin.errors import InputError
from rejuv_plugin.integrations.verl import disk_mode, run_record
from rejuv_plugin.integrations.verl.cpu import fork_server
from rejuv_plugin.integrations.verl.driver_check import checked
from rejuv_plugin.integrations.verl.job import job_of


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
    tiny.save_sft(tmp_path / "sft", tiny.save_base(tmp_path / "base"), scale=0.05)
    tiny.save_data(tmp_path, train=24)
    tiny.save_calibration(tmp_path / "data.jsonl")
    return tmp_path


def config_of(root: Path, group: dict[str, Any] | None = None, **dotted: Any) -> Any:
    settings = {**defaults(), "base_path": str(root / "base"), **(group or {})}
    settings["fusion"] = settings["fusion"] | {"alpha": "auto"}
    settings["tune"] = settings["tune"] | {"alphas": "0.3,0.5", "count": 8}
    config = OmegaConf.create(
        {
            "trainer": {
                "use_v1": True,
                "device": "cpu",
                "default_local_dir": str(root / "run"),
                "resume_mode": "auto",
            },
            "data": {"train_files": [str(root / "train.parquet")], "prompt_key": "prompt", "max_response_length": 10},
            "algorithm": {"use_kl_in_reward": False},
            "reward": {"custom_reward_function": {"path": str(root / "reward.py"), "name": "compute_score"}},
            "actor_rollout_ref": {
                "model": {"path": str(root / "sft"), "external_lib": None, "lora_rank": 0},
                "actor": {"use_kl_loss": False},
                "rollout": {"n": 4, "temperature": 0.9},
            },
            "rejuvenation": settings,
        }
    )
    for key, value in dotted.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    return config


def applied(config: Any) -> disk_mode.Outcome:
    job = job_of(config)
    assert job is not None
    return disk_mode.apply(job, config)


def test_auto_is_a_setting_of_its_own() -> None:
    group = from_mapping({"base_path": "b", "fusion": {"alpha": "auto"}, "tune": {"count": 3}})
    assert group.tune == TuningConfig(enabled=True, count=3)
    assert group.fusion.alpha == 0.5
    assert not from_mapping({"base_path": "b", "fusion": {"alpha": 0.4}}).tune.enabled
    with pytest.raises(InputError, match=r"^rejuvenation.fusion.alpha: "):
        from_mapping({"base_path": "b", "fusion": {"alpha": "best"}})


def test_the_job_trains_from_the_chosen_alpha_and_a_resumed_one_does_not_choose_again(
    root: Path, capsys: pytest.CaptureFixture
) -> None:
    config = config_of(root)
    first = applied(config)
    assert first.tuned is not None
    alpha = first.tuned["alpha"]
    assert alpha in (0.3, 0.5)
    assert first.metrics["training/rejuvenation/alpha"] == alpha
    assert first.metrics["timing_s/rejuvenation_tune"] > 0
    shown = capsys.readouterr().out
    assert f"rejuvenation: alpha {alpha:g}: best_of_4 " in shown
    made = Path(config.actor_rollout_ref.model.path)
    assert json.loads((made / "rejuvenation.json").read_text())["settings"]["fusion"]["alpha"] == alpha
    (found,) = (root / "run" / "rejuvenated").glob("tuning-*/tuning.json")
    said = json.loads(found.read_text())
    assert said["prompts"] == {
        **{"files": [str(root / "train.parquet")], "count": 8, "group": 4, "temperature": 0.9, "max_response": 10},
        "reward": f"{root / 'reward.py'}:compute_score",
    }
    assert said["choice"] == {name: value for name, value in first.tuned.items() if name != "seconds"}

    # Another job with the same inputs: from the cache.
    written = snapshot(found.parent)
    again = applied(config_of(root))
    assert again.tuned is not None
    assert again.tuned["alpha"] == alpha
    assert again.key == first.key
    assert snapshot(found.parent) == written

    # A run that is resumed, whatever became of the cache and of the data.
    folder = root / "run" / "global_step_2"
    run_record.write(str(folder), first.key, tuned=first.tuned)
    (root / "run" / "latest_checkpointed_iteration.txt").write_text("2")
    found.unlink()
    (root / "reward.py").write_text("def compute_score(**kwargs):\n    raise AssertionError('not to be called')\n")
    capsys.readouterr()
    resumed = applied(config_of(root))
    assert resumed.key == first.key
    assert resumed.tuned == {**first.tuned, "seconds": 0.0}
    assert f"alpha {alpha:g}, as chosen when the run began" in capsys.readouterr().out
    assert not found.exists()


def test_alphas_are_tried_with_the_jobs_reset(root: Path) -> None:
    reset = defaults()["reset"] | {"ratio": 0.05, "calibration": str(root / "data.jsonl"), "positions": 2}
    config = config_of(root, {"reset": reset})
    found = applied(config)
    assert found.tuned is not None
    assert found.tuned["rho"] == 0.05
    manifest = json.loads((Path(config.actor_rollout_ref.model.path) / "rejuvenation.json").read_text())
    assert manifest["settings"]["fusion"]["alpha"] == found.tuned["alpha"]
    assert manifest["reset"]["neurons"] > 0


@pytest.mark.parametrize(
    ("dotted", "says"),
    [
        (
            {"reward__custom_reward_function__path": None},
            "rejuvenation.tune.reward: expected FILE.py:FUNCTION, to score answers with, for "
            "rejuvenation.fusion.alpha=auto, got none, and no reward.custom_reward_function.path",
        ),
        ({"reward__custom_reward_function__path": "gone.py"}, "rejuvenation.tune.reward: expected FILE.py:FUNCTION"),
        ({"rejuvenation__mode": "worker"}, "rejuvenation.fusion.alpha: expected a number, in worker mode"),
        (
            {"actor_rollout_ref__rollout__multi_turn": {"enable": True}},
            "rejuvenation.fusion.alpha: expected a number, with actor_rollout_ref.rollout.multi_turn.enable=true",
        ),
        (
            {"actor_rollout_ref__rollout__agent": {"default_agent_loop": "tool_agent"}},
            "rejuvenation.fusion.alpha: expected a number, with "
            "actor_rollout_ref.rollout.agent.default_agent_loop=tool_agent",
        ),
        (
            {"data__custom_cls": {"path": "rows.py"}},
            "rejuvenation.fusion.alpha: expected a number, with data.custom_cls.path=rows.py",
        ),
        (
            {"reward__reward_model": {"enable": True}},
            "rejuvenation.fusion.alpha: expected a number, with reward.reward_model.enable=true",
        ),
        ({"rejuvenation__tune__data": "gone.parquet"}, "rejuvenation.tune.data: expected a .parquet or .jsonl file"),
        ({"actor_rollout_ref__rollout__n": 1}, "rejuvenation.tune.group: expected at least 2 answers"),
        ({"actor_rollout_ref__rollout__n": 3}, "rejuvenation.tune.best_of: expected no more than the answers"),
        ({"rejuvenation__tune__alphas": "high"}, "rejuvenation.tune.alphas: expected LOW:HIGH"),
        ({"rejuvenation__tune__alpha": "0.3"}, "rejuvenation.tune.alpha: expected one of the keys"),
    ],
)
def test_what_is_refused_before_ray_starts(
    root: Path, dotted: dict[str, Any], says: str, capsys: pytest.CaptureFixture
) -> None:
    before = snapshot(root)
    config = config_of(root)
    OmegaConf.set_struct(config, False)
    for key, value in dotted.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    with pytest.raises(SystemExit) as caught:
        checked(lambda *args, **kwargs: None)(config)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err
    assert snapshot(root) == before


def test_a_function_that_is_not_there_ends_the_job_with_a_line(root: Path) -> None:
    config = config_of(root, reward__custom_reward_function__name="absent")
    with pytest.raises(InputError, match=r"^rejuvenation.tune.reward: expected a function absent in"):
        applied(config)
