# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Alarms with hysteresis: raised when a rule's condition has held, ended when a laxer one has been met for a while."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from .judges import BEGIN, Judged, Rule
from .rules import RULES

METRIC = "training/plasticity/alarm/"
"""And the rule's name: 1 while the alarm is on, else 0; absent before the rule could judge anything."""


@dataclass(frozen=True)
class Alarm:
    """An alarm that was raised, or one that ended."""

    name: str
    step: int
    """At which it was raised, or ended."""
    since: int
    """First step of the condition that raised it."""
    seen: str
    why: str
    try_: str
    ended: bool = False

    def __str__(self) -> str:
        """For the console: four lines, or one for an alarm that ended."""
        if self.ended:
            return f"rejuvenation: alarm {self.name} ended at step {self.step}: {self.seen}"
        head = f"rejuvenation: ALARM {self.name} at step {self.step}, since step {self.since}"
        return f"{head}\n  seen: {self.seen}\n  why:  {self.why}\n  try:  {self.try_}"

    def to_json(self) -> dict[str, Any]:
        """A line of ``alarms.jsonl``."""
        event = "ended" if self.ended else "raised"
        record = {"step": self.step, "name": self.name, "event": event, "since": self.since, "seen": self.seen}
        return record if self.ended else record | {"why": self.why, "try": self.try_}


@dataclass
class _State:
    """Of one rule."""

    memory: dict[str, Any] = field(default_factory=dict)
    judged: bool = False
    on: bool = False
    since: int = 0
    in_a_row: int = 0
    """Bad measurements while off, good ones while on."""


class Alarms:
    """All rules over one run.

    Example:

        alarms = Alarms()
        for alarm in alarms.look(step, metrics):
            print(alarm)
        metrics |= alarms.metrics()
    """

    def __init__(self, rules: Sequence[Rule] = RULES, begin: int = 1) -> None:
        """
        Args:
            rules: which.
            begin: the run's first step that updates the policy: later than 1 where a critic warms up alone.
        """
        self._rules = rules
        self._states = {rule.name: _State({BEGIN: begin}) for rule in rules}

    def look(self, step: int, metrics: Mapping[str, float]) -> list[Alarm]:
        """Judge a step by its metrics (full names): the alarms that it raised or ended, in the order of the rules.

        A rule whose metrics are missing or not finite is left as it is.
        """
        found = []
        for rule in self._rules:
            values = [metrics.get(name) for name in rule.reads]
            known = [float(value) for value in values if value is not None and isfinite(value)]
            if len(known) < len(values):
                continue
            state = self._states[rule.name]
            judged = rule.judge(rule, step, known, state.memory)
            if judged is not None and (alarm := _advance(rule, state, step, judged)):
                found.append(alarm)
        return found

    def metrics(self) -> dict[str, float]:
        """1 or 0 for each rule that has judged a step, by metric name."""
        return {METRIC + name: float(state.on) for name, state in self._states.items() if state.judged}

    def state(self) -> dict[str, Any]:
        """JSON for a checkpoint, copied; see `load_state`."""
        return {name: vars(state) | {"memory": _copied(state.memory)} for name, state in self._states.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken. Rules that it does not know start anew."""
        for name in self._states.keys() & state.keys():
            known = state[name]
            self._states[name] = _State(**dict(known) | {"memory": _copied(known["memory"])})


def _advance(rule: Rule, state: _State, step: int, judged: Judged) -> Alarm | None:
    """Count one judged step; the alarm, if that raises or ends it."""
    state.judged = True
    if not (judged.good if state.on else judged.bad):
        state.in_a_row = 0
        return None
    state.in_a_row += 1
    if not state.on and state.in_a_row == 1:
        state.since = step if judged.since is None else judged.since
    if state.in_a_row < (rule.clear_after if state.on else rule.after):
        return None
    state.on, state.in_a_row = not state.on, 0
    return Alarm(rule.name, step, state.since, judged.seen, rule.why, rule.try_, ended=not state.on)


def _copied(memory: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(memory))
