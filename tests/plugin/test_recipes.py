# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Scripts for clusters, as far as a machine without one goes: verl composes the configuration, and we accept it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from verl_composer import Composer, Refused

from rejuv_plugin.integrations.verl.job import Job, job_of

RECIPES = Path(__file__).parents[2] / "recipes"


# verl's commands are written down instead of started, and torchrun is one process, whatever it is asked for.
PYTHON = f"""#!/usr/bin/env bash
if [ "$1" != -m ]; then exec "{sys.executable}" "$@"; fi
printf '%s\\0' "$@" > "$WRITTEN_DOWN"
"""
TORCHRUN = """#!/usr/bin/env bash
while [ "$1" != -m ]; do shift; done
exec python "$@"
"""


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    started = Composer(VERL_PLATFORM="cpu")
    yield started
    started.close()


def command_of(script: str, directory: Path, *arguments: str, **variables: str) -> list[str]:
    """The arguments of python that a script ends with."""
    stand_ins = directory / "stand_ins"
    stand_ins.mkdir()
    for name, text in (("python", PYTHON), ("torchrun", TORCHRUN)):
        (stand_ins / name).write_text(text)
        (stand_ins / name).chmod(0o755)
    written_down = stand_ins / "arguments"
    env = os.environ | {"PATH": f"{stand_ins}:{os.environ['PATH']}", "WRITTEN_DOWN": str(written_down)} | variables
    command = ["bash", str(RECIPES / script), *arguments, "--cfg", "job"]
    result = subprocess.run(command, env=env, cwd=directory, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    return written_down.read_text().split("\0")[:-1]


def composed(
    composer: Composer, script: str, directory: Path, *arguments: str, platform: str = "cuda", **more: str
) -> DictConfig:
    """What a script hands verl's trainer."""
    variables = {"SFT": "/sft", "BASE": "/base", "TRAIN": "t.parquet", "VAL": "v.parquet", "DATA": "/data"}
    variables |= {"OUT": str(directory / "out"), "SIMULATOR_URL": "http://host:8000/v1", "PLATFORM": platform}
    flag, module, *overrides = command_of(script, directory, *arguments, **variables | more)
    assert (flag, overrides[-2:]) == ("-m", ["--cfg", "job"])
    return composer(module, overrides[:-2])


def kept(config: DictConfig, directory: Path, name: str, keep: int | None = None) -> None:
    """What a run leaves, where, and what it is called."""
    assert config.trainer.experiment_name == name
    assert (config.trainer.max_actor_ckpt_to_keep, config.trainer.max_critic_ckpt_to_keep) == (keep, keep)
    out = directory / "out"
    assert config.trainer.default_local_dir == str(out / "checkpoints")
    assert config.trainer.validation_data_dir == str(out / "validation")
    # Where Ray was started before, its processes have no other variables of ours.
    variables = config.ray_kwargs.ray_init.runtime_env.env_vars
    assert variables["VERL_FILE_LOGGER_PATH"] == str(out / "metrics.jsonl")
    assert variables["TENSORBOARD_DIR"] == str(out / "tensorboard")


def budgets(config: DictConfig) -> tuple[int, int, int]:
    """Tokens of a micro-batch on a GPU."""
    parts = config.actor_rollout_ref
    assert parts.actor.use_dynamic_bsz
    training = parts.actor.ppo_max_token_len_per_gpu
    return training, parts.ref.log_prob_max_token_len_per_gpu, parts.rollout.log_prob_max_token_len_per_gpu


def recomputed(config: DictConfig) -> list:
    settings = config.actor_rollout_ref.actor.megatron.override_transformer_config
    return [settings[f"recompute_{name}"] for name in ("granularity", "method", "num_layers")]


def accepted(config: DictConfig) -> Job:
    job = job_of(config)
    assert job is not None
    return job


def test_megatron_grpo(composer: Composer, tmp_path: Path) -> None:
    more = {"CALIBRATION": "pairs.jsonl", "CP": "4", "MAX_PROMPT": "1000", "MAX_RESPONSE": "9001"}
    config = composed(composer, "megatron_grpo/run_qwen3_30b_a3b_megatron.sh", tmp_path, **more)
    kept(config, tmp_path, "sft-alpha0.5-reset-worker")
    # Of 4 GPUs, two sequences that are as long as they may be.
    assert budgets(config) == (5001, 10002, 10002)
    assert recomputed(config) == ["full", "uniform", 1]
    job = accepted(config)
    assert job.settings.mode == "worker"
    assert job.settings.reset.calibration == "pairs.jsonl"
    actor = config.actor_rollout_ref.actor
    assert (actor.strategy, actor.megatron.expert_model_parallel_size) == ("megatron", 8)
    assert actor.megatron.tensor_model_parallel_size == config.actor_rollout_ref.ref.megatron.tensor_model_parallel_size


@pytest.mark.parametrize(
    ("arm", "start", "alpha", "path"),
    [("moderate", "", 1.0, "/models/sft4"), ("sft8", "/x", 1.0, "/x")],
)
def test_quickstart_from_any_start(
    composer: Composer, tmp_path: Path, arm: str, start: str, alpha: float, path: str
) -> None:
    more = {"ARM": arm, "START": start, "MODELS": "/models", "RUN_DIR": str(tmp_path)}
    config = composed(composer, "quickstart/run_nav_fsdp2.sh", tmp_path, platform="cpu", **more)
    job = accepted(config)
    assert (config.trainer.experiment_name, config.actor_rollout_ref.model.path) == (arm, path)
    assert (job.settings.fusion.alpha, job.settings.base_path) == (alpha, "/models/base")


def test_verl_itself_composes_the_same(composer: Composer, tmp_path: Path) -> None:
    """The one command that is started, as users start it: the composer stands in for it in the tests around."""
    variables = {"MODELS": "/models", "RUN_DIR": str(tmp_path)}
    arguments = command_of("quickstart/run_nav_fsdp2.sh", tmp_path, **variables)
    env = os.environ | {"VERL_PLATFORM": "cpu"}
    result = subprocess.run([sys.executable, *arguments], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    config = OmegaConf.create(yaml.safe_load(result.stdout))
    assert config.rejuvenation.base_path == "/models/base"
    assert composer(arguments[1], arguments[2:-2]) == config


def test_a_key_that_verl_does_not_have(composer: Composer, tmp_path: Path) -> None:
    """So that the composer's silence says something."""
    with pytest.raises(Refused, match=r"Could not override 'critic.optim.weight_decay_of_all'"):
        composed(composer, "math_grpo/run_qwen3_4b_ppo.sh", tmp_path, "critic.optim.weight_decay_of_all=1")


MATH: dict[str, dict[str, Any]] = {
    "run_evolm_4b_grpo.sh": {
        "algorithm.adv_estimator": "grpo",
        "trainer.nnodes": 1,
        "data.train_batch_size": 512,
        "data.max_response_length": 1024,
        "actor_rollout_ref.actor.kl_loss_coef": 0.001,
        "reward.reward_manager.name": "naive",
    },
    "run_qwen3_8b_dapo.sh": {
        "algorithm.filter_groups.metric": "acc",
        "trainer.nnodes": 2,
        "actor_rollout_ref.actor.use_kl_loss": False,
        "actor_rollout_ref.actor.clip_ratio_high": 0.28,
        "reward.reward_manager.name": "dapo",
        "reward.reward_kwargs.overlong_buffer_cfg.len": 2048,
        "reward.reward_kwargs.max_resp_len": 8192,
    },
    "run_qwen3_4b_ppo.sh": {
        "algorithm.adv_estimator": "gae",
        "critic.model.path": "/sft",
        "critic.strategy": "fsdp2",
        "critic.ppo_infer_max_token_len_per_gpu": 8192,
        "actor_rollout_ref.rollout.n": 1,
    },
}


@pytest.mark.parametrize("script", MATH)
def test_math_grpo(composer: Composer, script: str, tmp_path: Path) -> None:
    config = composed(composer, f"math_grpo/{script}", tmp_path, ALPHA="0.4", RESET_SET="neurons.json", KEEP="2")
    kept(config, tmp_path, f"{script.removesuffix('.sh').rpartition('_')[2]}-sft-alpha0.4-reset", keep=2)
    job = accepted(config)
    assert (job.settings.mode, job.settings.fusion.alpha) == ("disk", 0.4)
    assert job.settings.reset.set_path == "neurons.json"
    for key, expected in MATH[script].items():
        assert OmegaConf.select(config, key) == expected, key
    rollout = config.actor_rollout_ref.rollout
    assert (config.actor_rollout_ref.actor.strategy, rollout.name) == ("fsdp2", "vllm")
    assert rollout.max_model_len == config.data.max_prompt_length + config.data.max_response_length
    assert Path(config.reward.custom_reward_function.path).is_file()


@pytest.mark.parametrize("engine", ["fsdp2", "megatron"])
def test_tau_retail(composer: Composer, engine: str, tmp_path: Path) -> None:
    config = composed(composer, f"tau_retail/run_qwen3_8b_{engine}.sh", tmp_path, SIMULATOR_SEED="3")
    accepted(config)
    kept(config, tmp_path, "sft-alpha0.5-simulator-seed3-temperature0.0")
    assert budgets(config) == ((8192 + 16384) // {"fsdp2": 4, "megatron": 2}[engine],) * 3
    assert config.actor_rollout_ref.rollout.val_kwargs.n == 4
    assert config.actor_rollout_ref.rollout.val_kwargs.do_sample
    assert config.actor_rollout_ref.rollout.val_kwargs.temperature == 1.0
    if engine == "megatron":
        assert recomputed(config) == ["full", "uniform", 1]
    assert config.actor_rollout_ref.actor.strategy == engine
    assert (config.data.train_files, config.data.val_files) == ("/data/train.parquet", "/data/test.parquet")
    workers = config.ray_kwargs.ray_init.runtime_env.env_vars
    assert workers.SIMULATOR_URL == "http://host:8000/v1"
    assert (workers.SIMULATOR_MODEL, workers.SIMULATOR_SEED) == ("Qwen/Qwen3-4B-Instruct-2507", "3")
    assert workers.PYTHONPATH.split(":")[0] == str(RECIPES / "tau_retail")
    (loop,) = OmegaConf.load(config.actor_rollout_ref.rollout.agent.agent_loop_config_path)
    assert loop.name == "tau2_retail"


@pytest.mark.parametrize(
    ("variables", "tokens", "mismatch"),
    [({}, 16384, False), ({"MAX_LENGTH": "24577", "ULYSSES": "4", "IGNORE_MISMATCH": "True"}, 6145, True)],
)
def test_sft_ladder(composer: Composer, tmp_path: Path, variables: dict[str, str], tokens: int, mismatch: bool) -> None:
    pd.DataFrame({"messages": [[]] * 48}).to_parquet(tmp_path / "sft.parquet")
    more = {"TRAIN": "sft.parquet", "OUT": "ladder", "RUNGS": "2", **variables}
    config = composed(composer, "math_grpo/run_sft_ladder_fsdp2.sh", tmp_path, **more)
    assert (config.data.train_batch_size, config.trainer.total_training_steps) == (16, 6)
    assert (config.data.max_token_len_per_gpu, config.data.ignore_input_ids_mismatch) == (tokens, mismatch)
    ulysses = config.engine.ulysses_sequence_parallel_size
    assert ulysses == int(variables.get("ULYSSES", 1))
    assert ulysses * tokens >= config.data.max_length, "verl refuses a longer row"
    assert config.trainer.default_local_dir == str(tmp_path / "ladder" / "run")


def sourced(directory: Path, *arguments: str, **variables: str) -> str:
    """OUT after a script that was given these has sourced cluster.sh."""
    line = f'set -euo pipefail; BASE=/base; . {RECIPES}/cluster.sh; echo "$OUT"'
    env = {name: value for name, value in os.environ.items() if name != "OUT"} | variables
    command = ["bash", "-c", line, "script", *arguments]
    return subprocess.run(command, env=env, cwd=directory, check=True, capture_output=True, text=True).stdout.strip()


def test_each_start_has_a_directory(tmp_path: Path) -> None:
    ladder = "/ladder/epochs"
    starts = [
        ({"SFT": f"{ladder}_2", "ALPHA": "1"}, "epochs_2-alpha1"),
        ({"SFT": f"{ladder}_32/", "ALPHA": "1"}, "epochs_32-alpha1"),
        ({"SFT": f"{ladder}_32"}, "epochs_32-alpha0.5"),
        ({"SFT": f"{ladder}_32", "CALIBRATION": "pairs.jsonl"}, "epochs_32-alpha0.5-reset"),
    ]
    for variables, name in starts:
        assert sourced(tmp_path, **variables) == str(tmp_path / "out" / name)
    assert sourced(tmp_path, SFT="/sft", OUT="mine") == str(tmp_path / "mine")


def test_metrics_of_an_earlier_start_are_kept(tmp_path: Path) -> None:
    metrics = tmp_path / "out" / "metrics.jsonl"
    metrics.parent.mkdir()
    for content in ("first", "second"):
        metrics.write_text(content)
        sourced(tmp_path, "--cfg", "job", SFT="/sft", OUT="out")
        assert metrics.read_text() == content, "nothing was started"
        sourced(tmp_path, "trainer.val_only=True", SFT="/sft", OUT="out")
        assert not metrics.exists()
    sourced(tmp_path, SFT="/sft", OUT="out")
    found = {path.name: path.read_text() for path in metrics.parent.iterdir()}
    assert found == {"metrics-1.jsonl": "first", "metrics-2.jsonl": "second"}


def test_a_customer_who_is_not_there(tmp_path: Path) -> None:
    """Said before verl starts."""
    env = os.environ | dict.fromkeys(("SFT", "BASE", "DATA"), "x") | {"SIMULATOR_URL": "http://127.0.0.1:1/v1"}
    env |= {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
    command = ["bash", str(RECIPES / "tau_retail" / "run_qwen3_8b_fsdp2.sh")]
    result = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "SIMULATOR_URL: expected an answer of Qwen/Qwen3-4B-Instruct-2507 at http://127.0.0.1:1/v1, got "
    )
    assert "Fix: " in last


def test_an_algorithm_that_is_none(tmp_path: Path) -> None:
    env = os.environ | dict.fromkeys(("SFT", "BASE", "TRAIN", "VAL"), "x") | {"ALGORITHM": "dpo"}
    command = ["bash", str(RECIPES / "math_grpo" / "run_math_fsdp2.sh")]
    result = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "ALGORITHM: expected grpo, dapo or ppo, got dpo. Fix:" in result.stderr


@pytest.mark.parametrize(("last", "code"), [("true", 0), ("exit 3", 3), ("sleep 1; exit 3", 3)])
def test_a_run_that_fails_ends_its_script(tmp_path: Path, last: str, code: int) -> None:
    """Also one that has ended before the script waits for it."""
    lines = [
        "set -euo pipefail",
        f". {RECIPES}/environment.sh",
        "for i in 1 2 3; do wait_for_room 2; in_background true; done",
    ]
    lines += [f"in_background bash -c '{last}'", "sleep 0.5", "wait_for_all", "echo went on"]
    env = os.environ | {"HERE": str(RECIPES / "quickstart"), "OUT": str(tmp_path)}
    result = subprocess.run(["bash", "-c", "\n".join(lines)], env=env, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (code, "" if code else "went on\n"), result.stderr


@pytest.mark.parametrize(("start", "rejuvenated"), [("base", False), ("sft4", True), ("", True)])
def test_who_starts_at_the_base_is_not_rejuvenated(
    composer: Composer, tmp_path: Path, start: str, rejuvenated: bool
) -> None:
    """As the ladder starts the quickstart's job under verl."""
    models = tmp_path / "models"
    for name in ("base", "sft4"):
        (models / name).mkdir(parents=True)
    told = {"MODELS": str(models), "ARM": start or "over", "START": str(models / start) if start else ""}
    config = composed(composer, "quickstart/run_nav_fsdp2.sh", tmp_path, platform="cpu", **told)
    assert config.actor_rollout_ref.model.path == str(models / (start or "sft64"))
    assert ("rejuvenation" in config) == rejuvenated
