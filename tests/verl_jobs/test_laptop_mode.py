# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's pipeline on a CPU: two workers, validation, save and resume, tools, and the in-sync rollout in all of them."""

import shutil
import time
from pathlib import Path

import pytest
import tiny
import torch
from verl_jobs.job import DETERMINISTIC, Job, plasticity, without_timings

from rejuv_plugin.monitors.history import read_alarms, read_steps

TWO_WORKERS = ["trainer.n_gpus_per_node=2"]
VALIDATION = ["trainer.val_before_train=True", "trainer.test_freq=2"]


def assert_in_sync(job: Job, tolerance: float = 1e-5) -> None:
    for step in (1, 2, 3, 4):
        assert job.log_prob_gap(step) < tolerance


def test_killed_and_resumed_is_the_uninterrupted_run(models: Path, tmp_path: Path) -> None:
    """FSDP1 on two workers, GRPO with a KL reference. Steps 3 and 4 are run again as if they had been lost: the killed
    process saw both uninterrupted."""
    checkpoints = tmp_path / "checkpoints"
    job = Job(tmp_path, models / "sft", models / "data", steps=100)
    job.overrides = [
        *DETERMINISTIC, *TWO_WORKERS, "+rejuvenation=default", f"rejuvenation.base_path={models}/base",
        f"rejuvenation.cache_dir={tmp_path}/cache",
        "actor_rollout_ref.actor.strategy=fsdp", "actor_rollout_ref.actor.use_kl_loss=True",
        "trainer.save_freq=2", "trainer.resume_mode=auto", "trainer.total_epochs=100", VALIDATION[0],
    ]  # fmt: skip
    process = job.start()
    deadline = time.monotonic() + 300
    # verl saves a step before it logs it. A job that is killed in between has lost what the monitors saw of it.
    while 4 not in job.metrics and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, job.log[-6000:]
    job.kill(process)
    whole, others = job.metrics, job.final_weights(step=4)
    assert whole[1]["actor/kl_loss"] == pytest.approx(0, abs=1e-7), "the reference is the rejuvenated start"
    assert whole[4]["actor/kl_loss"] > 0
    assert_in_sync(job)
    for later in checkpoints.glob("global_step_*"):
        if later.name != "global_step_2":
            shutil.rmtree(later)
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("2")
    (made,) = (tmp_path / "cache").glob("sft-*")
    written = {file.name: file.stat().st_mtime_ns for file in made.iterdir()}

    job.metrics_path.unlink()
    job.steps = 4
    job.run()
    assert "rejuvenation: found in the cache" in job.log.split("rejuvenation: made in")[-1]
    assert {file.name: file.stat().st_mtime_ns for file in made.iterdir()} == written, "the transform ran again"
    resumed, rest = without_timings(job.metrics), without_timings(whole)
    assert resumed.keys() == {2, 3, 4}, "step 2 is the start of this part: the transform's summary"
    assert {step: resumed[step] for step in (3, 4)} == {step: rest[step] for step in (3, 4)}
    for step in (3, 4):
        seen = plasticity(whole[step])
        assert plasticity(job.metrics[step]) == seen, "entropy's and weights' start, and the alarms, are the run's"
        assert seen["grad_norm"] == pytest.approx(whole[step]["actor/grad_norm"], rel=1e-5)
        assert seen["drift_start"] > seen["update_ratio"] > 0
    steps = read_steps(checkpoints / "plasticity.jsonl", "run")
    assert [row["step"] for row in steps] == [0, 1, 2, 3, 4]
    validated = {name: value for name, value in whole[0].items() if name.startswith("val-")}
    assert steps[0]["metrics"] == validated, "of the start, and not of step 2, where the run went on"
    assert validated
    assert "off from step" not in job.log
    weights = job.final_weights()
    assert [name for name in others if not torch.equal(weights[name], others[name])] == []


TOOL = '''
from verl.tools.function_tool import function_tool


@function_tool
def add(a: int, b: int) -> str:
    """Add two numbers.

    Args:
        a: one number
        b: another number
    """
    return f"sum {a + b}"
'''
TOOL_CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


def save_tool_caller(path: Path, base: Path) -> None:
    """Fine-tune a tiny model until it answers every sum with `TOOL_CALL`: seconds, since it is one string."""
    from transformers import Qwen2ForCausalLM

    tok = tiny.tokenizer()
    model = Qwen2ForCausalLM.from_pretrained(base)
    prompts = [
        tok.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False)
        for question in ("1+22=", "27+5=", "3+19=", "18+4=")
    ]
    answer = tok(TOOL_CALL + "<|im_end|>")["input_ids"]
    ids = torch.tensor([prompt + answer for prompt in prompts])
    labels = ids.clone()
    labels[:, : len(prompts[0])] = -100
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 1e-3:
            break
    model.save_pretrained(path)
    tok.save_pretrained(path)


def test_multi_turn_with_a_tool_on_two_fsdp2_workers(models: Path, tmp_path: Path) -> None:
    save_tool_caller(tmp_path / "sft", models / "base")
    tiny.save_data(tmp_path / "data", agent_name="tool_agent")
    (tmp_path / "tools.py").write_text(TOOL)
    job = Job(tmp_path / "run", tmp_path / "sft", tmp_path / "data", steps=5)
    job.overrides = [
        *TWO_WORKERS, *VALIDATION, "+rejuvenation=default", f"rejuvenation.base_path={models}/base",
        "rejuvenation.monitors.stop_on_alarm=true",
        "actor_rollout_ref.rollout.temperature=0.7", "actor_rollout_ref.actor.optim.lr=1e-5",
        # alpha 1 keeps the skill of calling the tool, which half of it would not.
        "rejuvenation.fusion.alpha=1", "data.max_response_length=160", "actor_rollout_ref.rollout.max_model_len=256",
        "actor_rollout_ref.rollout.multi_turn.enable=True",
        "actor_rollout_ref.rollout.multi_turn.max_assistant_turns=2",
        f"actor_rollout_ref.rollout.multi_turn.function_tool_path={tmp_path}/tools.py",
        f"trainer.rollout_data_dir={tmp_path}/rollouts",
    ]  # fmt: skip
    job.run()
    job.steps = 4  # as an alarm ends the run, see below
    # This model was trained roughly: float32 alone, with a cache against without one in plain transformers, moves its
    # log-probabilities by 6e-5. Other weights, or a mask that lets tool tokens in, would move them by tenths.
    assert_in_sync(job, tolerance=1e-3)
    # user, assistant's call, tool, assistant: four turns where the tool was called.
    assert job.metrics[1]["num_turns/max"] == 4
    assert "sum 3" in (tmp_path / "rollouts" / "1.jsonl").read_text()
    assert "val-core/sums/acc/mean@1" in job.metrics[0]
    assert "val-core/sums/acc/mean@1" in job.metrics[2]
    # Tool tokens are no part of the policy: entropies are those of verl's own mask.
    for step in (1, 2, 3, 4):
        assert plasticity(job.metrics[step])["entropy"] == pytest.approx(job.metrics[step]["actor/entropy"], rel=1e-3)
    # It knows the call by heart: an alarm after three steps, so that the next one is the last, and is saved.
    assert max(job.metrics) == 4
    assert job.final_weights(step=4)
    (alarm,) = read_alarms(job.directory / "checkpoints" / "alarms.jsonl", "run")
    assert (alarm["name"], alarm["step"], alarm["since"]) == ("low_entropy_at_start", 3, 1)
    assert "rejuvenation: ALARM low_entropy_at_start at step 3, since step 1" in job.log
