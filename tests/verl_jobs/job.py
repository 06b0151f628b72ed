# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Run the user's own command, ``python -m verl.trainer.main_ppo``, on tiny models, and read what it left."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from beside import beside

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"

BOTH = "rejuvenation,rejuvenation_cpu"
CPU_ALONE = "rejuvenation_cpu"

# The plain GRPO command of a user, at a size that takes seconds.
COMMAND = [
    "+laptop=default",
    "algorithm.adv_estimator=grpo",
    # Logs the ratio of the actor's to the rollout's probability for every token: see log_prob_gap.
    "algorithm.rollout_correction.rollout_is=token",
    "data.train_batch_size=4",
    "data.max_prompt_length=48",
    "data.max_response_length=8",
    "data.seed=1",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
    "actor_rollout_ref.actor.optim.lr=1e-3",
    "actor_rollout_ref.actor.strategy=fsdp2",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8",
    "actor_rollout_ref.rollout.max_model_len=128",
    "trainer.val_before_train=False",
    "trainer.test_freq=-1",
    "trainer.save_freq=-1",
    "trainer.total_epochs=10",
    "trainer.resume_mode=disable",
]

DETERMINISTIC = [
    "actor_rollout_ref.rollout.full_determinism=True",
    "actor_rollout_ref.actor.fsdp_config.full_determinism=True",
]

# With a learning rate of 0 the saved actor is what the job started from, and what its rollouts were given.
STANDING_STILL = ["actor_rollout_ref.actor.optim.lr=0", "trainer.save_freq=2"]


def importing(*paths: str | Path) -> dict[str, str]:
    """PYTHONPATH for a job whose processes import from these directories, too."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (*map(str, paths), os.environ.get("PYTHONPATH", ""))))}


def on_vllm(*more: str | Path) -> dict[str, str]:
    """Variables for a job with vLLM's CPU build as the rollout, beside `actor_rollout_ref.rollout.name=vllm`."""
    packages = beside("vllm")
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
    return settings | importing(*more, packages)


def on_megatron(*more: str | Path) -> dict[str, str]:
    """Variables for a job with verl's Megatron engine on a CPU (`megatron_cpu.in_jobs`)."""
    return importing(*more, ROOT / "tests", beside("megatron")) | {"VERL_USE_EXTERNAL_MODULES": "megatron_cpu.in_jobs"}


@dataclass
class Job:
    """One run of the command in its own directory. ``data`` holds train.parquet, val.parquet and reward.py."""

    directory: Path
    model: Path
    data: Path
    steps: int = 3
    overrides: list[str] = field(default_factory=list)
    plugins: str = BOTH
    env: dict[str, str] = field(default_factory=dict)

    def command(self) -> list[str]:
        return [
            sys.executable, "-m", "verl.trainer.main_ppo", *COMMAND,
            f"data.train_files={self.data}/train.parquet",
            f"data.val_files={self.data}/val.parquet",
            f"reward.custom_reward_function.path={self.data}/reward.py",
            f"actor_rollout_ref.model.path={self.model}",
            f"trainer.total_training_steps={self.steps}",
            'trainer.logger=["console","file"]',
            f"trainer.default_local_dir={self.directory}/checkpoints",
            *self.overrides,
        ]  # fmt: skip

    def start(self) -> subprocess.Popen:
        self.directory.mkdir(parents=True, exist_ok=True)
        # Ray's sockets live below its temporary directory, and a socket's path may have 107 characters.
        self.ray_dir = tempfile.mkdtemp(prefix="ray", dir="/tmp")
        env = {
            **os.environ,
            "VERL_PLATFORM": "cpu",
            "VERL_USE_EXTERNAL_PLUGINS": self.plugins,
            "VERL_FILE_LOGGER_PATH": str(self.metrics_path),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DEDUP_LOGS": "0",
            "TQ_LOGGING_LEVEL": "WARN",
            "PYTHONUNBUFFERED": "1",
            "HYDRA_FULL_ERROR": "0",
            **self.env,
        }
        self.log_path = self.directory / "log.txt"
        command = [*self.command(), f"+ray_kwargs.ray_init._temp_dir={self.ray_dir}", f"hydra.run.dir={self.directory}"]
        return subprocess.Popen(
            command, cwd=self.directory, env=env, stdout=self.log_path.open("ab"), stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def run(self, timeout: float = 900) -> "Job":
        """Run to the end; a job that fails shows the end of its log."""
        code = self.wait(self.start(), timeout)
        assert code == 0, f"exit code {code}:\n{self.log[-6000:]}"
        return self

    def wait(self, process: subprocess.Popen, timeout: float = 900) -> int:
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill(process)
            raise AssertionError(f"no end after {timeout} s:\n{self.log[-6000:]}") from None
        finally:
            shutil.rmtree(self.ray_dir, ignore_errors=True)

    def kill(self, process: subprocess.Popen) -> None:
        """SIGKILL the driver and everything it started, as a cluster's scheduler does."""
        import psutil

        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGKILL)
        for child in children:
            if child.is_running():
                child.kill()
        process.wait()
        time.sleep(1)  # Ray's head node needs a moment to let go of its ports

    @property
    def metrics_path(self) -> Path:
        return self.directory / "metrics.jsonl"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def metrics(self) -> dict[int, dict[str, float]]:
        """step -> metric -> value, as verl's own file logger wrote them."""
        steps: dict[int, dict[str, float]] = {}
        for line in self.metrics_path.read_text().splitlines(keepends=True) if self.metrics_path.exists() else ():
            if not line.endswith("\n"):
                break  # it is being written
            row = json.loads(line)
            steps.setdefault(row["step"], {}).update(row["data"])
        return steps

    def log_prob_gap(self, step: int) -> float:
        """Largest difference of a token's log-probability between rollout and actor, before the update of ``step``.

        From verl's own importance weights exp(actor - rollout); a gap above log 2 is cut there.
        """
        row = self.metrics[step]
        return max(abs(math.log(row[f"rollout_corr/rollout_is_{end}"])) for end in ("min", "max"))

    def final_weights(self, step: int | None = None, role: str = "actor") -> dict[str, torch.Tensor]:
        """Every rank's saved shards, keyed ``<rank>.<name>``."""
        folder = self.directory / "checkpoints" / f"global_step_{step or self.steps}" / role
        files = sorted(folder.glob("model_world_size_*_rank_*.pt"))
        assert files, f"no checkpoint in {folder}"
        weights = {}
        for rank, file in enumerate(files):
            for name, value in torch.load(file, weights_only=False).items():
                weights[f"{rank}.{name}"] = value.to_local() if hasattr(value, "to_local") else value
        return weights


@dataclass
class Script(Job):
    """A recipe's script instead of the tests' command; what it asks for comes in ``env``."""

    script: Path = RECIPES

    def command(self) -> list[str]:
        return ["bash", str(self.script), *self.overrides]

    def start(self) -> subprocess.Popen:
        self.env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PLATFORM": "cpu", **self.env}
        return super().start()


def plasticity(metrics: dict[str, float]) -> dict[str, float]:
    """What the monitors gave of one step, by short names."""
    names = {name: name.partition("/plasticity/")[2] for name in metrics if "/plasticity/" in name}
    return {short: metrics[name] for name, short in names.items()}


def assert_asynchronous(job: Job) -> None:
    """Two steps of an asynchronous trainer that stood still: rollouts in sync, and seen by every monitor."""
    assert max(job.log_prob_gap(step) for step in (1, 2)) < 1e-5
    assert "training/off_policy/trajectory_staleness/mean" in job.metrics[2]
    seen = plasticity(job.metrics[2])
    assert seen["update_ratio"] == seen["drift_start"] == 0 < seen["drift_base"]
    assert abs(seen["grad_norm"] / job.metrics[2]["actor/grad_norm"] - 1) < 1e-5
    assert "off from step" not in job.log


def without_timings(metrics: dict[int, dict[str, float]]) -> dict[int, dict[str, float]]:
    """verl's metrics that two runs must share: no seconds, no memory, and nothing that is divided by seconds."""
    volatile = ("timing", "perf/", "memory", "/plasticity/")
    return {
        step: {k: v for k, v in row.items() if not any(part in k for part in volatile)} for step, row in metrics.items()
    }
