# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Alarms: each is raised by what it is for and ended by what is healthy, never by noise; state survives a resume."""

import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from alarm_runs import BITS, DORMANT, DROP, ENTROPY, FLOOR, PASS, RATE, ZERO, Metrics, rule_of, run, updates

from rejuv_plugin.monitors import groups
from rejuv_plugin.monitors.alarms import METRIC, Alarm, Alarms
from rejuv_plugin.monitors.rules import RULES

P_STAR = 1 - 2 ** (-1 / 8)


@dataclass(frozen=True)
class Case:
    bad: Metrics
    good: Metrics
    wobble: tuple[Metrics, Metrics]
    """Just on either side of the level."""
    says: str
    before: list[Metrics] = field(default_factory=list)
    window: int = 0
    """Measurements before the smoothed value is the new one."""


def passed(rate: float) -> Metrics:
    return {PASS: rate, FLOOR: P_STAR, ZERO: 0.6}


def unequal(zero: float, rate: float) -> Metrics:
    return {ZERO: zero, PASS: rate}


CASES = {
    "entropy_collapse": Case({DROP: 0.6}, {DROP: 0.3}, ({DROP: 0.49}, {DROP: 0.51}), "60% below"),
    "no_signal": Case(
        passed(0.02), passed(0.3), (passed(P_STAR - 0.01), passed(P_STAR + 0.01)), "0.020, mean", window=5
    ),
    "all_solved": Case(
        passed(0.99), passed(0.7), (passed(1 - P_STAR - 0.01), passed(1 - P_STAR + 0.01)), "0.990, mean", window=5
    ),
    "zero_advantage": Case(
        unequal(0.9, 0.2), unequal(0.3, 0.4), (unequal(0.49, 0.2), unequal(0.51, 0.2)), "90% of the prompts", window=5
    ),
    "stalled_update": Case(
        updates(2e-6, 0.5), updates(6e-6, 0.3), (updates(2.9e-6, 0.5), updates(3.1e-6, 0.5)),
        "0.33 times, gradient norms 1.67 times", before=[updates(6e-6, 0.3)] * 20, window=5,
    ),
    "frozen_bits": Case(
        {BITS: 1e-6, RATE: 1e-6}, {BITS: 1e-3, RATE: 1e-6}, ({BITS: 0.9e-4, RATE: 1e-6}, {BITS: 1.1e-4, RATE: 1e-6}),
        "1.0e-06 of the bf16 weights", before=[{BITS: 1e-3, RATE: 1e-6}],
    ),
    "dormant_growth": Case(
        {DORMANT: 0.3}, {DORMANT: 0.06}, ({DORMANT: 0.14}, {DORMANT: 0.16}), "30.0%", before=[{DORMANT: 0.05}]
    ),
}  # fmt: skip


def test_every_rule_has_a_case() -> None:
    assert {rule.name for rule in RULES} == {"low_entropy_at_start", *CASES}


@pytest.mark.parametrize("name", CASES)
def test_raised_once_by_what_it_is_for_and_ended_by_what_is_healthy(name: str) -> None:
    case, rule = CASES[name], rule_of(name)
    feed = case.before + [case.good] * 5 + [case.bad] * 20 + [case.good] * 20
    raised, ended = (alarm for alarm in run(feed) if alarm.name == name)
    healthy = len(case.before) + 5
    assert not raised.ended
    assert healthy < raised.since <= healthy + max(1, case.window)
    assert raised.step == raised.since + rule.after - 1
    assert raised.why == rule.why
    assert raised.try_ == rule.try_
    assert "alarm" in raised.seen
    assert str(raised).count("\n") == 3
    assert ended.ended
    assert healthy + 20 + rule.clear_after <= ended.step <= healthy + 20 + rule.clear_after + case.window
    assert str(ended).count("\n") == 0
    assert case.says in next(a for a in run(case.before + [case.bad] * 10) if a.name == name).seen or case.window


@pytest.mark.parametrize("name", CASES)
def test_one_bad_measurement_less_raises_nothing(name: str) -> None:
    case, rule = CASES[name], rule_of(name)
    window = [case.bad] * (case.window - 1 if case.window else 0)
    enough = case.before + window + [case.bad] * rule.after
    assert name not in {alarm.name for alarm in run(enough[:-1])}
    alarm = next(alarm for alarm in run(enough) if alarm.name == name)
    assert case.says in alarm.seen


@pytest.mark.parametrize("name", CASES)
def test_noise_around_the_level_neither_raises_nor_ends(name: str) -> None:
    case = CASES[name]
    assert name not in {alarm.name for alarm in run(case.before + [*case.wobble] * 50)}
    alarms = Alarms()
    raising = case.before + [case.bad] * 12
    assert [a.name for a in run(raising, alarms) if a.name == name] == [name]
    assert name not in {alarm.name for alarm in run([*case.wobble] * 50, alarms, len(raising) + 1)}
    assert alarms.metrics()[METRIC + name] == 1.0


@pytest.mark.parametrize(("name", "rate"), [("no_signal", 0.02), ("all_solved", 0.99)])
def test_noise_in_how_many_groups_are_alike_neither_raises_nor_ends(name: str, rate: float) -> None:
    around = [passed(rate) | {ZERO: share} for share in (0.31, 0.39)] * 25
    assert name not in {alarm.name for alarm in run(around)}
    alarms = Alarms()
    assert name in {alarm.name for alarm in run([passed(rate)] * 10, alarms)}
    run(around, alarms, 11)
    assert alarms.metrics()[METRIC + name] == 1.0
    run([passed(rate) | {ZERO: 0.1}] * 10, alarms, 61)
    assert alarms.metrics()[METRIC + name] == 0.0


@pytest.mark.parametrize("mean", [-3.0, 3.0])
def test_scores_on_one_side_of_a_pass_are_no_alarm_where_they_differ(mean: float) -> None:
    """A reward model's: each answer has an advantage, whatever counts as a pass."""
    scores = np.random.default_rng(0).normal(mean, 1.0, 64 * 8) * 0.1 + mean
    prompts = [str(i // 8) for i in range(len(scores))]
    found = groups.signals(scores.tolist(), prompts, 0.5, compared=True)
    assert found["pass_rate"] in (0.0, 1.0)
    metrics = {f"training/plasticity/{name}": value for name, value in found.items()}
    assert run([metrics] * 20) == []
    # Of pass and fail alone the same rate is one.
    binary = groups.signals([float(mean > 0)] * 64, prompts[:64], 0.5, compared=True)
    same = {f"training/plasticity/{name}": value for name, value in binary.items()}
    assert ("no_signal" if mean < 0 else "all_solved") in {alarm.name for alarm in run([same] * 20)}


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_measured_changes_nothing(name: str) -> None:
    case = CASES[name]
    feed = case.before + [case.bad] * 12
    gaps = [metrics for seen in feed for metrics in ({}, seen, dict.fromkeys(seen, math.nan))]
    (without,) = (alarm for alarm in run(feed) if alarm.name == name)
    (with_gaps,) = (alarm for alarm in run(gaps) if alarm.name == name)
    assert with_gaps.step == 3 * without.step - 1
    assert with_gaps.seen == without.seen


def test_low_entropy_is_judged_once_at_the_start() -> None:
    def start(*entropies: float, first: int = 1) -> list[Alarm]:
        return run([{ENTROPY: entropy} for entropy in entropies], start=first)

    (alarm,) = start(0.19, 0.16, 0.17, 0.01, 0.01)
    assert (alarm.name, alarm.step, alarm.since) == ("low_entropy_at_start", 3, 1)
    assert "0.173 nats" in alarm.seen
    assert not start(0.17, 0.17, 0.21, *[0.01] * 50), "later collapse is another alarm's"
    assert not start(*[0.01] * 20, first=40), "step 40 is not the start"
    alarm, over = start(*[0.1] * 3, *[0.19, 0.21] * 10, *[0.3] * 5)
    assert over.ended
    assert over.step == 3 + 20 + 4


def test_the_start_is_the_first_update_after_a_critics_warm_up() -> None:
    """Which monitors that join later do not see, here as elsewhere; resumed or not."""
    feed: list[Metrics] = [{}] * 4 + [{ENTROPY: 0.1}] * 3
    (alarm,) = run(feed, Alarms(begin=5))
    assert (alarm.name, alarm.since, alarm.step) == ("low_entropy_at_start", 5, 7)
    assert not run([{ENTROPY: 0.1}] * 20, Alarms(begin=5), start=8)
    resumed = Alarms()
    resumed.load_state(Alarms(begin=5).state())
    assert run(feed, resumed) == [alarm]


def test_an_entropy_that_is_halved_after_the_collapse_window_is_fine() -> None:
    assert not run([{DROP: 0.6}] * 50, start=151)
    assert run([{DROP: 0.6}] * 3, start=148)
    # The policy's first update is that of step 148.
    assert run([{DROP: 0.6}] * 3, Alarms(begin=148), start=290)
    assert not run([{DROP: 0.6}] * 3, Alarms(begin=148), start=298)


def noisy_run(seed: int, steps: int = 160) -> list[Metrics]:
    """Everything at once, in and out of trouble, with gaps."""
    chance = random.Random(seed)
    feed = []
    for step in range(steps):
        trouble = (step // 40) % 2 == 1
        metrics: Metrics = {ENTROPY: 0.15 + chance.gauss(0, 0.02) + 0.1 * (step > 30)}
        for case in CASES.values():
            metrics |= case.bad if trouble else case.before[0] if case.before else case.good
        metrics |= passed(0.01 if trouble else 0.5)
        feed.append({name: value for name, value in metrics.items() if chance.random() > 0.05})
    return feed


@pytest.mark.parametrize("seed", range(3))
def test_resumed_at_every_step_is_as_never_interrupted(seed: int) -> None:
    feed = noisy_run(seed)
    whole = Alarms()
    told = run(feed, whole)
    saved, again = Alarms().state(), []
    for step, metrics in enumerate(feed, 1):
        alarms = Alarms()
        alarms.load_state(json.loads(json.dumps(saved, allow_nan=False)))
        again += alarms.look(step, metrics)
        saved = alarms.state()
    assert again == told
    assert saved == whole.state()
    assert {alarm.name for alarm in told} >= {rule.name for rule in RULES} - {"all_solved"}


def test_state_is_a_copy_and_unknown_rules_are_left_out() -> None:
    alarms = Alarms()
    run([{DROP: 0.6, DORMANT: 0.1, ZERO: 0.5}] * 2, alarms)
    saved = alarms.state()
    kept = json.dumps(saved)
    run([{DROP: 0.6, DORMANT: 0.1, ZERO: 0.5}], alarms, 3)
    assert json.dumps(saved) == kept
    resumed = Alarms()
    resumed.load_state(saved | {"of_another_version": {}})
    assert [alarm.name for alarm in run([{DROP: 0.6}], resumed, 3)] == ["entropy_collapse"]


def test_metrics_are_zero_or_one_and_absent_before_anything_was_judged() -> None:
    alarms = Alarms()
    assert alarms.metrics() == {}
    run([{DROP: 0.6}], alarms)
    assert alarms.metrics() == {f"{METRIC}entropy_collapse": 0.0}
    run([{DROP: 0.6}] * 2, alarms, 2)
    assert alarms.metrics() == {f"{METRIC}entropy_collapse": 1.0}
    # verl's reduce_metrics takes extremes of such names.
    assert not [rule.name for rule in RULES if "max" in rule.name or "min" in rule.name]


def test_an_entry_tells_everything() -> None:
    (alarm,) = run([{DROP: 0.6}] * 3)
    entry = alarm.to_json()
    assert json.loads(json.dumps(entry)) == entry
    assert {"step": 3, "since": 1, "name": "entropy_collapse", "event": "raised"}.items() <= entry.items()
    assert entry["seen"]
    assert entry["why"]
    assert entry["try"]


def test_the_page_has_every_rule_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "monitors.md").read_text()
    for rule in RULES:
        assert f"| `{rule.name}` | {rule.condition} | {rule.source} |" in page


def test_solved_prompts_are_no_dead_ones() -> None:
    names = {alarm.name for alarm in run([unequal(0.9, 0.8)] * 12)}
    assert "zero_advantage" not in names
