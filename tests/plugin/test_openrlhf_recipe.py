# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""recipes/openrlhf: the script as it is, with the real ``rejuv`` and OpenRLHF's own parser in place of its training."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from beside import beside

from rejuv_plugin.checkpoint import verify

ROOT = Path(__file__).parents[2]


def run(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    python = directory / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/tests/openrlhf_arguments.py" "$@"\n')
    python.chmod(0o755)
    rejuv = directory / "rejuv"
    rejuv.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from rejuv_plugin.cli import main; main()" "$@"\n')
    rejuv.chmod(0o755)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(beside("openrlhf-0.11.2"))])}
    env |= {"REJUV": str(rejuv), "PYTHON": str(python), "TRAIN": "train.jsonl", "REWARD": "reward.py"}
    env |= {name: str(directory / name.lower()) for name in ("BASE", "SFT", "OUT")}
    command = ["bash", str(ROOT / "recipes" / "openrlhf" / "run_grpo.sh"), *arguments]
    return subprocess.run(command, env=env | variables, capture_output=True, text=True, timeout=300, check=False)


def trained_with(result: subprocess.CompletedProcess[str]) -> Any:
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture
def models(tmp_path: Path) -> Path:
    tiny.save_base(tmp_path / "base")
    tiny.save_sft(tmp_path / "sft", tmp_path / "base")
    return tmp_path


def test_grpo_starts_from_the_rejuvenated_checkpoint(models: Path) -> None:
    args = trained_with(run(models, ALPHA="0.4"))
    start = models / "out" / "rejuvenated-alpha0.4"
    assert args["actor"]["model_name_or_path"] == str(start)
    assert json.loads((start / "rejuvenation.json").read_text())["settings"]["fusion"]["alpha"] == 0.4
    assert verify(start, "OUT") == {}
    # GRPO: no critic, a KL of its own, groups.
    assert args["algo"]["advantage"]["estimator"] == "group_norm"
    assert args["critic"]["model_name_or_path"] is None
    assert (args["algo"]["kl"]["use_loss"], args["rollout"]["n_samples_per_prompt"]) == (True, 8)
    assert args["reward"]["remote_url"] == ["reward.py"]

    made = (start / "rejuvenation.json").stat().st_mtime_ns
    again = trained_with(run(models, "--rollout.n_samples_per_prompt", "4", ALPHA="0.4"))
    assert (start / "rejuvenation.json").stat().st_mtime_ns == made, "the checkpoint is made once"
    assert again["rollout"]["n_samples_per_prompt"] == 4, "what follows the script's name wins"

    other = run(models, ALPHA="0.4", SFT="another")
    assert other.returncode == 2
    assert f"OUT: expected a start made from another, got another in {start}" in other.stderr


def test_openrlhf_refuses_what_it_does_not_know(models: Path) -> None:
    """So that the test above can fail: the README in OpenRLHF 0.11.2's own package has arguments that it lacks."""
    result = run(models, "--generate_max_len", "1024")
    assert result.returncode == 2
    assert "unrecognized arguments: --generate_max_len 1024" in result.stderr
