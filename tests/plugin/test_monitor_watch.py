# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What the trainer's side of the monitors asks of the workers, and what it does when something fails."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from omegaconf import OmegaConf

from rejuv_plugin.config import defaults
from rejuv_plugin.integrations.verl.job import job_of
from rejuv_plugin.integrations.verl.monitors import watch as module
from rejuv_plugin.integrations.verl.monitors.hub import Report
from rejuv_plugin.integrations.verl.monitors.watch import COMPARING, STATE, Watch, last_outputs
from rejuv_plugin.monitors.history import PLASTICITY, read_steps
from rejuv_plugin.monitors.monitor import Values


class Workers:
    """Answer as a worker group of two does."""

    def __init__(self, broken: str = "", entropy: float | None = 1.0) -> None:
        self.asked: list[tuple[str, Any]] = []
        self._broken = broken
        self._numbers = {} if entropy is None else {"entropy": entropy}

    def __getattr__(self, name: str) -> Any:
        def asked(argument: Any) -> list:
            self.asked.append((name.removeprefix("plasticity_"), argument))
            if name == self._broken:
                raise RuntimeError("a worker died")
            return [None, Report(Values(dict(self._numbers)))]

        return asked


def watch(
    root: Path, estimator: str = "grpo", groups: bool = False, critic_warmup: int = 0, filtered: bool = False
) -> Watch:
    tiny.save_base(root / "sft")
    (root / "probe.jsonl").write_text(json.dumps({"prompt": "2+2?", "response": "4"}))
    monitors = {"groups": groups, "probe_set": {"data": str(root / "probe.jsonl"), "every": 3}}
    config = OmegaConf.create(
        {
            "rejuvenation": {**defaults(), "base_path": str(root / "base"), "monitors": monitors},
            "algorithm": {"adv_estimator": estimator, "filter_groups": {"enable": filtered} if filtered else None},
            "trainer": {"use_v1": True, "default_local_dir": str(root / "run"), "critic_warmup": critic_warmup},
            "actor_rollout_ref": {"model": {"path": str(root / "sft")}},
        }
    )
    return Watch(job_of(config), config)


def test_the_probe_pass_is_asked_for_when_it_is_due_and_before_the_report(tmp_path: Path) -> None:
    watched, workers = watch(tmp_path), Workers()
    for step in range(5):
        trainer = SimpleNamespace(actor_rollout_wg=workers, global_steps=step)
        if step == 0:
            watched.begin(trainer, None)
            continue
        watched.ahead(trainer)
        metrics: dict[str, Any] = {"actor/lr": 1.0, "unknown": "text"}
        assert not watched.measure(trainer, None, metrics)
        assert metrics["actor/plasticity/entropy"] == 1.0
    assert [asked for asked in workers.asked if asked[0] == "ahead"] == [("ahead", 1), ("ahead", 3)]
    assert workers.asked[:2] == [("ahead", 1), ("report", 1)]
    assert [record["step"] for record in read_steps(tmp_path / "run" / PLASTICITY, "run")] == [1, 2, 3, 4]


def test_after_a_critics_warm_up_the_start_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watched = watch(tmp_path, critic_warmup=5)
    for step in range(1, 8):
        workers = Workers(entropy=0.1 if step >= 5 else None)
        watched.measure(SimpleNamespace(actor_rollout_wg=workers, global_steps=step), None, {})
    assert "ALARM low_entropy_at_start at step 7, since step 5" in capsys.readouterr().out


@pytest.mark.parametrize("first", [math.nan, math.inf, 0.0])
@pytest.mark.parametrize("resumed", [False, True])
def test_the_entropy_at_the_start_is_one_that_others_can_be_compared_with(
    tmp_path: Path, first: float, resumed: bool
) -> None:
    def measured(watched: Watch, step: int, entropy: float) -> dict[str, Any]:
        metrics: dict[str, Any] = {}
        trainer = SimpleNamespace(actor_rollout_wg=Workers(entropy=entropy), global_steps=step)
        watched.measure(trainer, None, metrics)
        if resumed:
            watched.save(trainer, str(tmp_path))
        return metrics

    watched = watch(tmp_path)
    assert "actor/plasticity/entropy_drop" not in measured(watched, 1, first)
    if resumed:
        watched = watch(tmp_path)
        watched.begin(SimpleNamespace(actor_rollout_wg=Workers(), global_steps=1), tmp_path)
    assert measured(watched, 2, 2.0)["actor/plasticity/entropy_drop"] == 0
    assert measured(watched, 3, 0.5)["actor/plasticity/entropy_drop"] == 0.75


@pytest.mark.parametrize("broken", ["plasticity_load", "plasticity_save", "plasticity_ahead", "plasticity_report"])
def test_what_fails_ends_the_monitors_once_and_not_the_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    watched, workers = watch(tmp_path), Workers(broken)
    trainer = SimpleNamespace(actor_rollout_wg=workers, global_steps=3)
    watched.begin(trainer, tmp_path)
    for _ in range(2):
        watched.save(trainer, str(tmp_path))
        watched.ahead(trainer)
        assert not watched.measure(trainer, None, {})
    assert capsys.readouterr().out.count("monitors are off from step 3 on: RuntimeError('a worker died')") == 1
    assert [name for name, _ in workers.asked][-1] == broken.removeprefix("plasticity_"), "nothing is asked after it"


def test_a_state_that_cannot_be_read_or_a_directory_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watched, trainer = watch(tmp_path), SimpleNamespace(actor_rollout_wg=Workers(), global_steps=3)
    (tmp_path / STATE).write_text("{")
    watched.begin(trainer, tmp_path)
    assert "monitors are off" in capsys.readouterr().out
    (tmp_path / "run").write_text("a file")
    watch(tmp_path).begin(trainer, None)
    assert "monitors are off" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("estimator", "answers", "passed", "raised"),
    [
        # A job with a critic learns from single answers, and from equal ones.
        ("gae", 1, [0, 0, 1, 0], set()),
        ("gae", 1, [1, 1, 1, 0], set()),
        ("gae", 4, [0, 0, 0, 0], set()),
        ("grpo", 1, [0, 0, 1, 0], set()),
        ("grpo", 1, [1, 1, 1, 0], set()),
        ("grpo", 4, [0, 0, 0, 0], {"no_signal", "zero_advantage"}),
        ("grpo", 4, [1, 1, 1, 1], {"all_solved"}),
        ("a_users_own", 4, [0, 0, 0, 0], set()),
        ("gdpo", 4, [0, 0, 0, 0], set()),
    ],
)
def test_groups_are_judged_where_answers_are_compared(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    estimator: str,
    answers: int,
    passed: list[int],
    raised: set[str],
) -> None:
    """Of four prompts those in ``passed`` with 1 are always solved."""
    metrics = measured_groups(watch(tmp_path, estimator, groups=True), monkeypatch, [[p] * answers for p in passed])
    on = {name.rpartition("/")[2] for name, value in metrics.items() if "/alarm/" in name and value}
    assert on == raised
    assert metrics["training/plasticity/pass_rate"] == sum(passed) / 4


def test_nothing_is_said_of_groups_that_were_filtered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of them is mixed, though the policy may solve all the others, or none: their alarms do not judge."""
    watched = watch(tmp_path, groups=True, filtered=True)
    metrics = measured_groups(watched, monkeypatch, [[0, 1], [1, 0], [0, 1]])
    of_groups = {name.removeprefix("training/plasticity/") for name in metrics if name.startswith("training/plas")}
    assert of_groups & {"pass_rate", "pass_rate_floor", "zero_advantage_groups"} == {"zero_advantage_groups"}
    assert metrics["training/plasticity/zero_advantage_groups"] == 0
    judged = {name.removeprefix("alarm/") for name in of_groups if name.startswith("alarm/")}
    assert judged
    assert not judged & {"no_signal", "all_solved", "zero_advantage"}


@pytest.mark.parametrize(("answers", "failing_outputs"), [(8, 9), (1, 3)])
def test_an_answer_of_several_outputs_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: int, failing_outputs: int
) -> None:
    """An agent loop may return many, of which GRPO compares the last of each session; verl copies the reward."""
    passed = [[0] * (answers - 1) + [1]] * 4
    once = measured_groups(watch(tmp_path / "once", groups=True), monkeypatch, passed)
    often = measured_groups(watch(tmp_path / "often", groups=True), monkeypatch, passed, failing_outputs)
    assert once == often
    assert once["training/plasticity/pass_rate"] == 1 / answers
    assert ("training/plasticity/zero_advantage_groups" in once) == (answers > 1)


def test_verls_keys() -> None:
    # A tenth output comes after the ninth.
    keys = [f"a_b_0_{index}" for index in range(11)] + ["a_b_1_0", "of-another-kind", "of_another_kind"]
    assert last_outputs(keys) == ["a_b_0_10", "a_b_1_0", "of-another-kind", "of_another_kind"]


def measured_groups(
    watched: Watch, monkeypatch: pytest.MonkeyPatch, passed: list[list[int]], failing_outputs: int = 1
) -> dict[str, Any]:
    """The metrics of the last of twelve steps, with the scores of each prompt's answers."""
    rows = {
        f"{uid}_{session}_{index}": (uid, score)
        for uid, group in enumerate(passed)
        for session, score in enumerate(group)
        for index in range(1 if score else failing_outputs)
    }

    def get(keys: list[str], **_: Any) -> dict[str, Any]:
        scores = torch.tensor([[0.0, float(rows[key][1])] for key in keys])
        return {"uid": [rows[key][0] for key in keys], "rm_scores": scores}

    monkeypatch.setattr(module.transfer_queue, "kv_batch_get", get)
    batch = SimpleNamespace(keys=list(rows), tags=[{}] * len(rows), partition_id="train")
    metrics: dict[str, Any] = {}
    for step in range(1, 13):
        watched.measure(SimpleNamespace(actor_rollout_wg=Workers(), global_steps=step), batch, metrics)
    return {name: value for name, value in metrics.items() if not name.startswith("timing_s/")}


def test_every_estimator_of_verl_is_sorted() -> None:
    from verl.trainer.ppo.core_algos import AdvantageEstimator

    # Of gdpo it is the components of the reward that are compared, not the scores that are seen here.
    # A group teaches grpo_passk only if its best score is one answer's alone.
    others = {"gdpo", "gae", "grpo_passk", "reinforce_plus_plus", "remax"}
    assert {estimator.value for estimator in AdvantageEstimator} <= {*COMPARING, *others}
    assert AdvantageEstimator.GRPO in COMPARING
