# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The tau2 recipe's own scripts under verl: a tiny model is the agent, and, served, the customer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tau2
from beside import beside
from verl_jobs.job import Script, importing, on_megatron, on_vllm, plasticity


def two_steps(tmp_path: Path, script: str, *overrides: str, **variables: str) -> None:
    paths = tau2.on_path()
    from make_tiny import save_agent, save_base
    from serve_tiny import speaking

    agent = save_agent(tmp_path / "agent")
    base = save_base(tmp_path / "base", agent)
    make = [sys.executable, str(tau2.RECIPE / "make_tau2.py"), "--out", str(tmp_path / "data")]
    subprocess.run(make, env=os.environ | importing(*paths), check=True, timeout=300)
    asked: list[dict] = []
    answer = speaking(agent)

    def customer(body: dict) -> str | int:
        asked.append(body)
        return answer(body)

    job = Script(tmp_path / "run", agent, tmp_path / "data", steps=2, script=tau2.RECIPE / script)
    with tau2.endpoint(customer) as url:
        job.env = {
            **importing(*paths), "SFT": str(agent), "BASE": str(base), "DATA": str(tmp_path / "data"),
            "OUT": str(job.directory), "SIMULATOR_URL": url, "SIMULATOR_MODEL": "tiny", "SIMULATOR_SEED": "5",
            "SIMULATOR_TEMPERATURE": "0.7", "TRANSCRIPTS": str(tmp_path / "transcripts"), "TURNS": "3", "STEPS": "2",
            "TRAIN_BATCH": "2", "MINI_BATCH": "2", "GROUP": "2", "MAX_PROMPT": "2560", "MAX_RESPONSE": "768",
            "OFFLOAD": "False", "TEST_FREQ": "-1", "SAVE_FREQ": "-1", "LR": "1e-4", "ALPHA": "0.9", **variables,
        }  # fmt: skip
        job.overrides = [
            f"rejuvenation.cache_dir={tmp_path}/cache",
            f"trainer.rollout_data_dir={tmp_path}/rollouts",
            "trainer.val_before_train=False",
            "algorithm.rollout_correction.rollout_is=token",
            'trainer.logger=["console","file"]',
            *overrides,
        ]
        job.run()

    assert {(body["model"], body["seed"], body["temperature"]) for body in asked} == {("tiny", 5, 0.7)}
    kept = [json.loads(file.read_text()) for file in (tmp_path / "transcripts").iterdir()]
    assert len(kept) == 2 * 2 * 2
    roles = [[message["role"] for message in conversation["messages"]] for conversation in kept]
    assert all(speakers[:3] == ["system", "user", "assistant"] for speakers in roles)
    told = [m["content"] for conversation in kept for m in conversation["messages"] if m["role"] == "tool"]
    assert any('"T-Shirt"' in text for text in told), "a call reached the shop"
    for step in (1, 2):
        rows = [json.loads(line) for line in (tmp_path / "rollouts" / f"{step}.jsonl").open()]
        tasks = [row["gts"] for row in rows]
        assert sorted(tasks) == sorted(c["task"] for c in kept if c["task"] in tasks), "what verl trains on"
        assert sorted(row["score"] for row in rows) == sorted(c["outcome"]["score"] for c in kept if c["task"] in tasks)
        # Tokens of the customer or the shop in the policy's mask would move these.
        assert job.log_prob_gap(step) < 1e-3
        assert plasticity(job.metrics[step])["entropy"] == pytest.approx(job.metrics[step]["actor/entropy"], rel=1e-3)


def test_two_steps_with_a_served_model_on_both_sides(tmp_path: Path) -> None:
    two_steps(tmp_path, "run_qwen3_8b_fsdp2.sh", ULYSSES="1")


@pytest.mark.recipe_scripts
def test_two_steps_of_the_megatron_script(tmp_path: Path) -> None:
    variables = on_megatron(*tau2.on_path()) | {"TP": "1", "CP": "1"}
    two_steps(tmp_path, "run_qwen3_8b_megatron.sh", **variables)


@pytest.mark.recipe_scripts
@pytest.mark.vllm
def test_two_steps_of_the_megatron_script_with_vllm_rollouts(tmp_path: Path) -> None:
    variables = on_vllm() | on_megatron(*tau2.on_path(), beside("vllm")) | {"TP": "1", "CP": "1", "ROLLOUT": "vllm"}
    two_steps(tmp_path, "run_qwen3_8b_megatron.sh", **variables)


@pytest.mark.recipe_scripts
@pytest.mark.vllm
def test_two_steps_with_vllm_rollouts(tmp_path: Path) -> None:
    overrides = ("actor_rollout_ref.rollout.name=vllm", "actor_rollout_ref.rollout.max_num_seqs=16")
    two_steps(tmp_path, "run_qwen3_8b_fsdp2.sh", *overrides, ULYSSES="1", **on_vllm(*tau2.on_path()))
