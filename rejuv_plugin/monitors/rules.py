# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""When a policy that learns is in trouble: the table `RULES`, and above it how each of its rows is judged.

A judge looks at one measured step. How long a condition must hold, and when it is over, is the business of `alarms`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

Memory = dict[str, Any]
"""What a rule remembers between steps: JSON, as it is saved with the run's checkpoints."""


@dataclass(frozen=True)
class Judged:
    """One step as a rule sees it. Between ``bad`` and ``good`` an alarm stays as it is."""

    bad: bool
    good: bool
    seen: str
    """The numbers, in words."""
    since: int | None = None
    """First step of the condition, where that is not simply the first bad step."""


@dataclass(frozen=True)
class Rule:
    """One alarm."""

    name: str
    reads: tuple[str, ...]
    """Full names of metrics. A step that lacks one of them is no measurement."""
    level: float
    """Beyond it a step is bad."""
    clear: float
    """Beyond it, on the other side, a step is good again."""
    after: int
    """Consecutive bad measurements that raise the alarm."""
    clear_after: int
    """Consecutive good measurements that end it."""
    judge: Callable[["Rule", int, Sequence[float], Memory], Judged | None]
    """From the step, the metrics in the order of ``reads`` and the memory, which it may change; None: not to be judged
    at this step."""
    when: str
    """The condition in words; ``{level}`` stands for the number, ``{times}`` for "0.9 times ", nothing if it is 1."""
    source: str
    """Of the condition and its level."""
    why: str
    """It matters."""
    try_: str
    """What to do."""

    @property
    def condition(self) -> str:
        """`when` with its numbers, and for how long."""
        how_long = f", for {self.after} measurements" if self.after > 1 else ""
        times = "" if self.level == 1 else f"{self.level:g} times "
        return self.when.format(level=f"{self.level:g}", times=times) + how_long


START = 3
"""Measured steps whose mean entropy is the start's."""
COLLAPSE_BY = 150
"""The step that the source looks at; a policy that has converged later may well have lost half of its entropy."""
WINDOW = 5
"""Measured steps that noisy metrics are averaged over."""
SETTLE = 10
"""Measured steps before a baseline of updates: Adam's steps shrink on their own until its first moment
(beta 0.9) is full, on pure noise to about half of the mean over the first ten."""
BASELINE = 10
"""Measured steps whose mean is the baseline of updates."""


def _low_at_start(rule: Rule, step: int, values: Sequence[float], memory: Memory) -> Judged | None:
    (entropy,) = values
    first = memory.setdefault("first", [])
    if len(first) < START:
        # Monitors that join a run later do not see its start.
        if not first and step > START:
            return None
        first.append(entropy)
        memory.setdefault("since", step)
        if len(first) < START:
            return None
        mean = fmean(first)
        seen = f"token entropy {mean:.3f} nats, mean of the first {START} measured steps; alarm below {rule.level:g}"
        return Judged(mean < rule.level, False, seen, memory["since"])
    return Judged(False, entropy > rule.clear, f"token entropy {entropy:.3f} nats")


def _collapse(rule: Rule, step: int, values: Sequence[float], memory: Memory) -> Judged:
    (drop,) = values
    seen = f"token entropy is {drop:.0%} below that of the start; alarm above {rule.level:.0%} by step {COLLAPSE_BY}"
    return Judged(drop > rule.level and step <= COLLAPSE_BY, drop < rule.clear, seen)


def _smoothed(memory: Memory, name: str, value: float) -> float | None:
    """Mean of the last `WINDOW` values; None before there are as many."""
    last = memory.setdefault(name, [])
    last.append(value)
    del last[:-WINDOW]
    return fmean(last) if len(last) == WINDOW else None


def _no_signal(rule: Rule, step: int, values: Sequence[float], memory: Memory) -> Judged | None:
    passed, floor = _smoothed(memory, "passed", values[0]), values[1]
    if passed is None:
        return None
    seen = f"pass rate {passed:.3f}, mean of {WINDOW} steps; alarm below {rule.level * floor:.3f}"
    return Judged(passed < rule.level * floor, passed > rule.clear * floor, seen)


def _all_solved(rule: Rule, step: int, values: Sequence[float], memory: Memory) -> Judged | None:
    passed, floor = _smoothed(memory, "passed", values[0]), values[1]
    if passed is None:
        return None
    seen = f"pass rate {passed:.3f}, mean of {WINDOW} steps; alarm above {1 - rule.level * floor:.3f}"
    return Judged(passed > 1 - rule.level * floor, passed < 1 - rule.clear * floor, seen)


def _zero_advantage(rule: Rule, step: int, values: Sequence[float], memory: Memory) -> Judged | None:
    share = _smoothed(memory, "share", values[0])
    if share is None:
        return None
    seen = f"{share:.0%} of the prompts have no advantage, mean of {WINDOW} steps; alarm above {rule.level:.0%}"
    return Judged(share > rule.level, share < rule.clear, seen)


def _warms_up(memory: Memory, rate: float) -> bool:
    """Whether the learning rate has risen since the last measurement."""
    last = memory.get("rate", rate)
    memory["rate"] = rate
    return rate > last * (1 + 1e-6)


NORM_LEVEL, NORM_CLEAR = 1.2, 1.1
"""Gradient norm against its baseline: above the first it has risen, below the second it has not."""


def _stalled(rule: Rule, step: int, values: Sequence[float], memory: Memory) -> Judged | None:
    ratio, norm, rate = values
    if _warms_up(memory, rate):
        for name in ("settled", "base", "speed", "norm"):
            memory.pop(name, None)
    if rate <= 0:
        return None
    memory["settled"] = memory.get("settled", 0) + 1
    if memory["settled"] <= SETTLE:
        return None
    # An update is proportional to the learning rate: a schedule that decays is not a policy that stalls.
    speed = ratio / rate
    base = memory.setdefault("base", [])
    if len(base) < BASELINE:
        base.append([speed, norm])
        return None
    speed_now, norm_now = _smoothed(memory, "speed", speed), _smoothed(memory, "norm", norm)
    base_speed, base_norm = (fmean(column) for column in zip(*base, strict=True))
    if speed_now is None or norm_now is None or min(base_speed, base_norm) <= 0:
        return None
    speed_share, norm_share = speed_now / base_speed, norm_now / base_norm
    seen = (
        f"updates (by learning rate) are {speed_share:.2f} times, gradient norms {norm_share:.2f} times those of "
        f"measured steps {SETTLE + 1} to {SETTLE + BASELINE}; alarm below {rule.level:g} and above {NORM_LEVEL:g}"
    )
    bad = speed_share < rule.level and norm_share > NORM_LEVEL
    return Judged(bad, speed_share > rule.clear or norm_share < NORM_CLEAR, seen)


def _frozen(rule: Rule, step: int, values: Sequence[float], memory: Memory) -> Judged | None:
    share, rate = values
    if _warms_up(memory, rate) or rate <= 0:
        return None
    seen = f"{share:.1e} of the bf16 weights changed, at learning rate {rate:.1e}; alarm below {rule.level:.0e}"
    return Judged(share < rule.level, share > rule.clear, seen)


def _dormant(rule: Rule, step: int, values: Sequence[float], memory: Memory) -> Judged:
    (share,) = values
    first = memory.setdefault("first", share)
    seen = f"{share:.1%} of a median layer's neurons are dormant, {first:.1%} at the first probe"
    seen += f"; alarm at {rule.level:g} more"
    return Judged(share - first > rule.level, share - first < rule.clear, seen)


_TRIAGE = "arXiv 2606.18487"
_OURS = "ours: no published threshold"
_PASS = ("training/plasticity/pass_rate", "training/plasticity/pass_rate_floor")

RULES = (
    Rule(
        name="low_entropy_at_start",
        reads=("actor/plasticity/entropy",),
        level=0.18,
        clear=0.20,
        after=1,
        clear_after=5,
        judge=_low_at_start,
        when=f"mean token entropy of the first {START} measured steps below {{level}} nats; judged once",
        source=_TRIAGE,
        why="a policy that starts RL this certain explores too little to be improved much: its final score was lower "
        f"along an SFT ladder ({_TRIAGE})",
        try_="start from an earlier SFT checkpoint, or rejuvenate with a smaller alpha (rejuvenation.fusion.alpha)",
    ),
    Rule(
        name="entropy_collapse",
        reads=("actor/plasticity/entropy_drop",),
        level=0.5,
        clear=0.4,
        after=3,
        clear_after=5,
        judge=_collapse,
        when=f"token entropy has dropped by more than {{level}} of its start by step {COLLAPSE_BY}",
        source=_TRIAGE,
        why=f"what is no longer sampled cannot be rewarded; early collapse foretells a low plateau ({_TRIAGE})",
        try_="a lower learning rate, a higher upper clip ratio, a KL or entropy term, harder prompts; or an earlier "
        "checkpoint of this run",
    ),
    Rule(
        name="no_signal",
        reads=_PASS,
        level=1.0,
        clear=1.2,
        after=3,
        clear_after=3,
        judge=_no_signal,
        when=f"pass rate (mean of {WINDOW} steps) below {{times}}p*(g) = 1 - 2^(-1/g), in groups of g",
        source=_TRIAGE,
        why=f"below p*(g) most groups have no right answer, so no advantage and no gradient ({_TRIAGE})",
        try_="easier prompts, larger groups (rollout.n), a denser reward; check the reward function on known answers",
    ),
    Rule(
        name="all_solved",
        reads=_PASS,
        level=1.0,
        clear=1.2,
        after=3,
        clear_after=3,
        judge=_all_solved,
        when=f"pass rate (mean of {WINDOW} steps) above 1 - {{times}}p*(g)",
        source=f"the mirror image of no_signal ({_TRIAGE})",
        why="most groups have only right answers, so there is nothing left to learn from these prompts",
        try_="harder prompts, or filter the solved ones; if validation is as good as you need, stop here",
    ),
    Rule(
        name="zero_advantage",
        reads=("training/plasticity/zero_advantage_groups",),
        level=0.75,
        clear=0.65,
        after=3,
        clear_after=5,
        judge=_zero_advantage,
        when=f"more than {{level}} of the prompts without an advantage (mean of {WINDOW} steps)",
        source=_OURS,
        why="most of each rollout is paid for and teaches nothing: all answers to a prompt earned the same (the "
        "level is ours)",
        try_="larger groups (rollout.n), prompts of middling difficulty, dynamic sampling (filter groups); see "
        "whether no_signal or all_solved is on",
    ),
    Rule(
        name="stalled_update",
        reads=("actor/plasticity/update_ratio", "actor/grad_norm", "actor/lr"),
        level=0.5,
        clear=0.7,
        after=3,
        clear_after=5,
        judge=_stalled,
        when=f"updates (by learning rate, mean of {WINDOW} steps) below {{level}} of their baseline while the gradient "
        f"norm is above {NORM_LEVEL:g} times its own",
        source="the pair: arXiv 2606.09932; the levels are ours",
        why="gradients that grow while weights move less disagree from step to step; stalled policies looked like "
        "this, and a dashboard's gradient norm like progress (arXiv 2606.09932)",
        try_="compare validation with an earlier checkpoint; larger batches; if the start was over-trained, "
        "rejuvenate it",
    ),
    Rule(
        name="frozen_bits",
        reads=("actor/plasticity/changed_bits", "actor/lr"),
        level=1e-4,
        clear=2e-4,
        after=5,
        clear_after=3,
        judge=_frozen,
        when="share of bf16 weights that changed below {level} though the learning rate is above 0 and not rising",
        source=_OURS,
        why="the rollout samples from bf16 weights: these hardly differ from one step to the next, so RL does not act "
        "on the policy (the level is ours)",
        try_="check that prompts have advantages; then a higher learning rate; see whether weights are kept in float32",
    ),
    Rule(
        name="dormant_growth",
        reads=("actor/plasticity/probe/grama_dormant_0.025_layers/q50",),
        level=0.1,
        clear=0.05,
        after=2,
        clear_after=2,
        judge=_dormant,
        when="share of dormant neurons (GraMa score at most 0.025, median layer) up by more than {level} since the "
        "first probe",
        source=_OURS,
        why="neurons that gradients no longer reach cannot be reshaped by reward (the level is ours, and dormancy is "
        "no sure sign: arXiv 2606.24752)",
        try_="a lower learning rate; an earlier checkpoint; look at the map over layers in rejuv report",
    ),
)
