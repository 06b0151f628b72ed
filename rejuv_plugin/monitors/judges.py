# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a rule is, and how each looks at one measured step: `rules` is the table of them.

How long a condition must hold, and when it is over, is the business of `alarms`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

Memory = dict[str, Any]
"""What a rule remembers between steps: JSON, as it is saved with the run's checkpoints."""


BEGIN = "begin"
"""What every memory holds from the start: the first step of the run that updates the policy."""


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
    """Why it matters."""
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
"""Updates of the policy, at which the source looks: what has converged later may well have lost half of its entropy."""
WINDOW = 5
"""Measured steps that noisy metrics are averaged over."""
SETTLE = 10
"""Measured steps before a baseline of updates: Adam's steps shrink on their own until its first moment
(beta 0.9) is full, on pure noise to about half of the mean over the first ten."""
BASELINE = 10
"""Measured steps whose mean is the baseline of updates."""


def low_at_start(rule: Rule, step: int, values: Sequence[float], memory: Memory) -> Judged | None:
    (entropy,) = values
    first = memory.setdefault("first", [])
    if len(first) < START:
        # Monitors that join a run later do not see its start; after a critic's warm-up it is the first update of all.
        if not first and step >= memory.get(BEGIN, 1) + START:
            return None
        first.append(entropy)
        memory.setdefault("since", step)
        if len(first) < START:
            return None
        mean = fmean(first)
        seen = f"token entropy {mean:.3f} nats, mean of the first {START} measured steps; alarm below {rule.level:g}"
        return Judged(mean < rule.level, False, seen, memory["since"])
    return Judged(False, entropy > rule.clear, f"token entropy {entropy:.3f} nats")


def collapse(rule: Rule, step: int, values: Sequence[float], memory: Memory) -> Judged:
    (drop,) = values
    # A critic's warm-up changes nothing in the policy.
    by = memory.get(BEGIN, 1) + COLLAPSE_BY - 1
    seen = f"token entropy is {drop:.0%} below that of the start; alarm above {rule.level:.0%} by step {by}"
    return Judged(drop > rule.level and step <= by, drop < rule.clear, seen)


def _smoothed(memory: Memory, name: str, value: float) -> float | None:
    """Mean of the last `WINDOW` values; None before there are as many."""
    last = memory.setdefault(name, [])
    last.append(value)
    del last[:-WINDOW]
    return fmean(last) if len(last) == WINDOW else None


ALIKE, MIXED = 0.4, 0.3
"""At a pass rate of p*(g) half of the groups and more are of one score, if a score says pass or fail and nothing else.
Far fewer are where scores differ among the failures, or among the passes, as a reward model's do: there the pass rate
does not tell whether there is anything to learn. Judged from the first on, ended below the second."""


def no_signal(rule: Rule, step: int, values: Sequence[float], memory: Memory) -> Judged | None:
    passed, floor = _smoothed(memory, "passed", values[0]), values[1]
    alike = _smoothed(memory, "alike", values[2])
    if passed is None or alike is None:
        return None
    seen = f"pass rate {passed:.3f}, mean of {WINDOW} steps; alarm below {rule.level * floor:.3f}"
    return Judged(passed < rule.level * floor and alike >= ALIKE, passed > rule.clear * floor or alike < MIXED, seen)


def all_solved(rule: Rule, step: int, values: Sequence[float], memory: Memory) -> Judged | None:
    passed, floor = _smoothed(memory, "passed", values[0]), values[1]
    alike = _smoothed(memory, "alike", values[2])
    if passed is None or alike is None:
        return None
    high = 1 - rule.level * floor
    seen = f"pass rate {passed:.3f}, mean of {WINDOW} steps; alarm above {high:.3f}"
    return Judged(passed > high and alike >= ALIKE, passed < 1 - rule.clear * floor or alike < MIXED, seen)


SOLVED = 0.5
"""Above this pass rate prompts without an advantage are mostly solved ones, which is what training is for."""


def zero_advantage(rule: Rule, step: int, values: Sequence[float], memory: Memory) -> Judged | None:
    share, passed = _smoothed(memory, "share", values[0]), _smoothed(memory, "passed", values[1])
    if share is None or passed is None:
        return None
    seen = (
        f"{share:.0%} of the prompts have no advantage and {passed:.0%} of the answers pass, means of {WINDOW} steps; "
        f"alarm above {rule.level:.0%} and below {SOLVED:.0%}"
    )
    return Judged(share > rule.level and passed < SOLVED, share < rule.clear or passed > SOLVED + 0.1, seen)


def _rates(memory: Memory, told: float) -> tuple[float | None, bool]:
    """The learning rate of this measurement's updates, None at the first one, and whether the next one's is higher.

    verl's ``actor/lr`` is what its scheduler says after the step, which is the next step's: a step's own was told by
    the measurement before.
    """
    own = memory.get("rate")
    memory["rate"] = told
    return own, own is not None and told > own * (1 + 1e-6)


NORM_LEVEL, NORM_CLEAR = 1.2, 1.1
"""Gradient norm against its baseline: above the first it has risen, below the second it has not."""


def stalled(rule: Rule, step: int, values: Sequence[float], memory: Memory) -> Judged | None:
    ratio, norm, told = values
    rate, rises = _rates(memory, told)
    if rises:
        for name in ("settled", "base", "speed", "norm"):
            memory.pop(name, None)
    if rate is not None and rate <= 0:
        return None
    memory["settled"] = memory.get("settled", 0) + 1
    if rate is None or memory["settled"] <= SETTLE:
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
        f"updates (by learning rate) are {speed_share:.2f} times, gradient norms {norm_share:.2f} times their "
        f"baseline; alarm below {rule.level:g} and above {NORM_LEVEL:g}"
    )
    bad = speed_share < rule.level and norm_share > NORM_LEVEL
    return Judged(bad, speed_share > rule.clear or norm_share < NORM_CLEAR, seen)


FADED = 0.01
"""Of the highest learning rate: below it a sample of the weights has too few that change to tell that from none."""


def frozen(rule: Rule, step: int, values: Sequence[float], memory: Memory) -> Judged | None:
    share, told = values
    # Of a run that began with a version which did not keep it the highest rate is not known.
    unknown = "rate" in memory and "highest" not in memory
    rate, rises = _rates(memory, told)
    if unknown:
        return None
    highest = memory["highest"] = max(told, memory.get("highest", told))
    if rate is None or rises or rate <= FADED * highest:
        return None
    # An update far below the last bit changes that with a chance proportional to its size, and so to the rate: at the
    # end of a schedule that decays to 0 a healthy policy hardly changes either.
    part = rate / highest
    seen = (
        f"{share:.1e} of the bf16 weights changed, at learning rate {rate:.1e}, {part:.2g} of its highest; "
        f"alarm below {rule.level * part:.1e}"
    )
    return Judged(share < rule.level * part, share > rule.clear * part, seen)


def dormant(rule: Rule, step: int, values: Sequence[float], memory: Memory) -> Judged:
    (share,) = values
    first = memory.setdefault("first", share)
    seen = f"{share:.1%} of a median layer's neurons are dormant, {first:.1%} at the first probe"
    seen += f"; alarm at {rule.level:g} more"
    return Judged(share - first > rule.level, share - first < rule.clear, seen)
