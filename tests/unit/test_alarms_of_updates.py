# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Alarms about small updates: no learning rate schedule, rounding or optimizer is taken for a stall."""

import json
import math

import pytest
import torch
from alarm_runs import BITS, NORM, RATE, RATIO, rule_of, run, updates

from rejuv_plugin.monitors.alarms import METRIC, Alarms


def as_told(rates: list[float]) -> list[tuple[float, float]]:
    """The rate that each step trains at, and ``actor/lr``, which verl reads after its scheduler's step."""
    return list(zip(rates, [*rates[1:], rates[-1]], strict=True))


@pytest.mark.parametrize("schedule", ["warm_up", "cosine", "constant"])
def test_schedules_stall_no_updates(schedule: str) -> None:
    """Updates follow the learning rate; the gradient norm rises all the while."""
    rates = {
        "warm_up": [1e-6 * min(1.0, step / 60) for step in range(1, 201)],
        "cosine": [5e-7 * (1 + math.cos(math.pi * step / 201)) for step in range(1, 201)],
        "constant": [1e-6] * 200,
    }[schedule]
    feed = [updates(6 * rate, 0.2 * 1.01**step, told) for step, (rate, told) in enumerate(as_told(rates))]
    assert not run(feed)
    # The same with updates that do collapse, at half time.
    stalled = [m | {RATIO: m[RATIO] * (0.3 if step > 100 else 1)} for step, m in enumerate(feed)]
    (alarm,) = run(stalled)
    assert alarm.name == "stalled_update"
    assert 100 < alarm.since <= 106


@pytest.mark.parametrize("seed", range(3))
def test_adam_on_pure_noise_is_no_stall(seed: int) -> None:
    """Adam's first steps are its largest, whatever the gradients: that shrinking is not a policy's."""
    torch.manual_seed(seed)
    weight = torch.nn.Parameter(torch.ones(2000, dtype=torch.float64))
    adam = torch.optim.AdamW([weight], lr=1e-6, weight_decay=0.0)
    feed = []
    for step in range(160):
        weight.grad = torch.randn(2000, dtype=torch.float64) * (1 + 0.03 * min(10, max(0, step - 20)))
        before = weight.detach().clone()
        norm = weight.grad.norm().item()
        adam.step()
        feed.append(updates(((weight.detach() - before).norm() / before.norm()).item(), norm))
    first = sum(m[RATIO] for m in feed[:10]) / 10
    assert min(m[RATIO] for m in feed[30:]) < 0.5 * first, "or there would be nothing to allow for"
    assert not run(feed)


def test_what_rounding_blurs_is_not_judged() -> None:
    alarms = Alarms()
    seen = {"actor/plasticity/update_ratio_rounded": 1e-5, NORM: 0.3, RATE: 1e-6}
    run([seen] * 60, alarms)
    assert METRIC + "stalled_update" not in alarms.metrics()
    run([updates(6e-6, 0.3)] * 60, alarms)
    assert METRIC + "stalled_update" in alarms.metrics()


def test_a_rate_of_zero_freezes_nothing() -> None:
    assert not run([{BITS: 0.0, RATE: 0.0}] * 20)
    assert not run([{BITS: 0.0, RATE: 1e-9 * step} for step in range(1, 20)]), "warm-up"
    assert not run([{BITS: 0.0, RATE: 1e-9}] * 5), "the first step's rate is not known"
    assert run([{BITS: 0.0, RATE: 1e-9}] * 6)


def test_a_step_is_judged_by_its_own_rate() -> None:
    """Which was told with the step before: the first one's is not known, and is 0 where it warms up from there."""
    rates = [0.0, 1e-6, 1e-6, 1e-6, 1e-6, 1e-6, 1e-6]
    feed = [{BITS: 0.0, RATE: told} for _, told in as_told(rates)]
    (alarm,) = run(feed)
    assert (alarm.since, alarm.step) == (2, 6)
    # Where the rate falls, the last update at the rate above is divided by that.
    feed = [updates(6 * rate, 0.3, told) for rate, told in as_told([1e-6] * 25 + [1e-7] * 15)]
    alarms, seen = Alarms(), set()
    for step, metrics in enumerate(feed, 1):
        alarms.look(step, metrics)
        seen.add(json.dumps(alarms.state()["stalled_update"]["memory"].get("speed", [])))
    assert all(speed == pytest.approx(6.0) for each in seen for speed in json.loads(each))


def test_a_rate_that_decays_to_zero_freezes_nothing() -> None:
    """Adam on float32 weights, of which fewer and fewer change in bfloat16, as many as are sampled of a small model."""
    torch.manual_seed(0)
    steps = 500
    weight = torch.nn.Parameter(torch.randn(50_000) * 0.02)
    adam = torch.optim.AdamW([weight], lr=1e-6)
    feed = []
    for step in range(steps):
        adam.param_groups[0]["lr"] = 0.5e-6 * (1 + math.cos(math.pi * step / steps))
        before = weight.detach().bfloat16()
        weight.grad = torch.randn(50_000)
        adam.step()
        changed = (weight.detach().bfloat16() != before).double().mean().item()
        told = 0.5e-6 * (1 + math.cos(math.pi * (step + 1) / steps))
        feed.append({BITS: changed, RATE: told})
    assert min(seen[BITS] for seen in feed[-5:]) < rule_of("frozen_bits").level < 0.1 * feed[0][BITS]
    assert not run(feed)
    # A policy that hardly acts is seen early and late.
    for first in (20, steps * 3 // 4):
        stuck = [seen | {BITS: seen[BITS] * (1e-3 if step >= first else 1)} for step, seen in enumerate(feed)]
        (alarm,) = run(stuck)
        assert (alarm.name, alarm.since) == ("frozen_bits", first + 1)


def test_a_run_that_kept_no_highest_rate_is_not_judged_by_its_part() -> None:
    state = Alarms().state()
    state["frozen_bits"]["memory"] |= {"rate": 2e-8}
    alarms = Alarms()
    alarms.load_state(state)
    raised = [alarms.look(step, {BITS: 5e-5, RATE: 2e-8}) for step in range(90, 110)]
    assert not any(raised)
