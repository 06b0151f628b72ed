# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The verdict on a checkpoint: ready, at risk, over-trained, or too weak to learn from; and why."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..ops.bootstrap import Estimate
from .evidence import CUT, ENOUGH, EVIDENCE, OVER, WEAK, Evidence, Unless

Level = Literal["ready", "at_risk", "over_trained", "too_weak", "unknown"]
Numbers = Mapping[str, Estimate | None]


@dataclass(frozen=True)
class Reason:
    """One rule's finding, met or not."""

    signal: str
    value: float
    interval: tuple[float, float] | None
    threshold: float
    bad: str
    """``above`` or ``below`` the threshold."""
    met: bool
    """Whether the value is on the bad side."""
    clear: bool
    """Whether the whole interval is on the value's side, and made of enough examples; see `bootstrap.Estimate`."""
    says: str
    source: str


@dataclass(frozen=True)
class NotJudged:
    """A rule whose signal was measured and means something else here."""

    signal: str
    why: str


@dataclass(frozen=True)
class Verdict:
    """Of one checkpoint."""

    level: Level
    headline: str
    reasons: tuple[Reason, ...]
    """Of all rules that could be judged; those that are met first."""
    advice: tuple[str, ...]
    not_judged: tuple[NotJudged, ...] = ()

    def to_json(self) -> dict[str, Any]:
        lists = {name: [asdict(each) for each in getattr(self, name)] for name in ("reasons", "not_judged")}
        return asdict(self) | lists | {"advice": list(self.advice)}


def judge(numbers: Numbers, evidence: Sequence[Evidence] = EVIDENCE) -> Verdict:
    """Weigh the evidence.

    Clear evidence, whose whole interval is beyond the threshold, adds up: `ENOUGH` of it makes a verdict, unless the
    whole interval of a published rule says otherwise. Less, or a published threshold that an interval crosses, is a
    risk; what is measured on a few examples is never clear. Without a measured entropy nothing is known. A low pass
    rate alone is no lost plasticity: it is said to be too weak only where nothing speaks for over-training.
    """
    judged = [(rule, reason) for rule in evidence if (reason := _judged(rule, numbers))]
    over = _sums([pair for pair in judged if pair[0].of == OVER])
    weak = _sums([pair for pair in judged if pair[0].of == WEAK])
    reasons = tuple(sorted((reason for _, reason in judged), key=lambda r: (not r.met, not r.clear)))
    if not any(rule.of == OVER and rule.weight >= ENOUGH for rule, _ in judged):
        level: Level = "unknown"
    elif over.clear >= ENOUGH and not over.denied:
        level = "over_trained"
    elif over.clear or over.open:
        level = "at_risk"
    elif weak.clear >= ENOUGH:
        level = "too_weak"
    elif weak.open:
        level = "at_risk"
    else:
        level = "ready"
    not_judged = tuple(
        NotJudged(rule.signal, unless.says)
        for rule in evidence
        if numbers.get(rule.signal)
        for unless in _exceptions(rule, numbers)
    )
    return Verdict(level, _headline(level, reasons, numbers), reasons, _advice(level, reasons), not_judged)


@dataclass(frozen=True)
class _Sums:
    clear: int
    """Weights of evidence that is met, and clearly."""
    open: int
    """Weights of what may be met: the value is beyond the threshold, or a published one lies within the interval."""
    denied: bool
    """Whether a published threshold is clearly not reached."""


def _sums(judged: Sequence[tuple[Evidence, Reason]]) -> _Sums:
    clear = sum(rule.weight for rule, reason in judged if reason.met and reason.clear)
    denied = any(rule.weight >= ENOUGH and reason.clear and not reason.met for rule, reason in judged)
    uncertain = [rule for rule, reason in judged if not reason.clear and (reason.met or rule.weight >= ENOUGH)]
    return _Sums(clear, sum(rule.weight for rule in uncertain), denied)


def _judged(rule: Evidence, numbers: Numbers) -> Reason | None:
    found, threshold = numbers.get(rule.signal), _level(rule.threshold, numbers)
    if found is None or threshold is None or (rule.stands_in_for and numbers.get(rule.stands_in_for)):
        return None
    if _exceptions(rule, numbers):
        return None
    met = _beyond(found.value, rule.bad, threshold)
    ends = found.interval or (found.value, found.value)
    clear = found.known and all(_beyond(end, rule.bad, threshold) == met for end in ends)
    said = rule.says if met else f"not seen: {rule.says}"
    return Reason(rule.signal, found.value, found.interval, threshold, rule.bad, met, clear, said, rule.source)


def _exceptions(rule: Evidence, numbers: Numbers) -> list[Unless]:
    """What keeps a rule from being judged, if anything."""
    return [unless for unless in rule.unless if _holds(unless, numbers)]


def _holds(unless: Unless, numbers: Numbers) -> bool:
    other, limit = numbers.get(unless.signal), _level(unless.level, numbers)
    return other is not None and limit is not None and _beyond(other.value, unless.side, limit)


def _level(threshold: float | str, numbers: Numbers) -> float | None:
    if not isinstance(threshold, str):
        return threshold
    found = numbers.get(threshold)
    return found.value if found else None


def _beyond(value: float, side: str, level: float) -> bool:
    return value > level if side == "above" else value < level


_HEADLINES = {
    "ready": "nothing that was measured speaks against RL from here",
    "at_risk": "RL from here may learn less than it could",
    "over_trained": "over-trained: RL from here is likely to learn little",
    "too_weak": "too weak to learn from on these prompts: RL would see hardly any right answer",
    "unknown": "too little was measured to judge",
}


def _headline(level: Level, reasons: Sequence[Reason], numbers: Numbers) -> str:
    seen = [f"{r.signal} {r.value:.3g} ({r.bad} {r.threshold:.3g})" for r in reasons if r.met]
    crossing = [f"{r.signal} {r.value:.3g} (not surely {_other(r.bad)} {r.threshold:.3g})" for r in _crossing(reasons)]
    said = seen or (crossing if level == "at_risk" else [])
    text = _HEADLINES[level] + (f": {', '.join(said)}" if said else "")
    if level == "ready" and numbers.get("pass_at_1") is None:
        text += "; no answers were scored, so whether RL sees right ones is not known"
    elif level == "ready" and _holds(CUT, numbers):
        text += "; most answers were cut before their end, so whether RL sees right ones is not known"
    elif level == "ready" and numbers.get("pass_floor") is None:
        text += "; single answers were scored, so whether groups of them would differ is not known"
    return text


def _other(side: str) -> str:
    return "below" if side == "above" else "above"


def _crossing(reasons: Sequence[Reason]) -> list[Reason]:
    return [reason for reason in reasons if not reason.met and not reason.clear]


_REJUVENATE = (
    "rejuvenate it: rejuv tune finds alpha by sampling, rejuv apply --alpha 0.5 is the paper's default; then diagnose "
    "the result"
)
_MORE = "measure more: a larger --count and more calibration examples narrow the intervals"


def _advice(level: Level, reasons: Sequence[Reason]) -> tuple[str, ...]:
    weak = any(reason.signal == "pass_at_1" and (reason.met or not reason.clear) for reason in reasons)
    easier = (
        "easier prompts, larger groups (rollout.n), a denser reward, or more SFT; check the reward on known answers"
    )
    if level == "over_trained":
        return (_REJUVENATE, "or start RL from an earlier checkpoint of the SFT run", *((easier,) if weak else ()))
    if level == "at_risk":
        more = (_MORE,) if any(not reason.clear for reason in reasons) else ()
        return (*more, *((easier,) if weak else ()), _REJUVENATE)
    if level == "too_weak":
        return (easier, "rejuvenation is not the cure: it moves a checkpoint towards its base")
    if level == "unknown":
        return ("measure entropy: --signals likelihood, or --prompts for sampled answers",)
    return ()
