# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A search for alpha and rho as its page sees it: what `rejuv tune` wrote into tuning.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from .fields import Fields
from .read import Estimate, Interval, Signal, facts, numbers, opened

FILE = "tuning.json"


@dataclass(frozen=True)
class Trial:
    """One setting that was tried. ``stopped``: why no more prompts were spent on it."""

    alpha: float
    rho: float
    objective: Estimate | None
    prompts: int
    group: int
    signals: dict[str, Estimate]
    seconds: float
    cached: bool
    stopped: str


@dataclass(frozen=True)
class Choice:
    """What was chosen, and how sure that is."""

    alpha: float
    rho: float
    objective: Estimate | None
    probability_best: float | None
    says: str
    difference: float | None
    """Of the objective to that at alpha 0.5."""
    difference_interval: Interval


@dataclass(frozen=True)
class Tuning:
    """All of it."""

    sft: str
    objective: Signal
    choice: Choice
    trials: list[Trial]
    seconds: float | None
    facts: list[tuple[str, str]]
    """How it was made: names and values in words."""


def read(tuning: Mapping[str, Any]) -> Tuning:
    """Check what tuning.json holds, and give it names.

    Raises:
        InputError: named by the place in the file that is not as it should be.
    """
    found = opened(tuning, "tuning", FILE)
    trials = [_trial(each) for each in found.each("trace")]
    if not trials:
        raise InputError(f"{FILE}.trace", "at least one setting", "none", "tune again")
    words = found.object("objective")
    objective = Signal(
        words.text("name", "objective"),
        words.text("meaning", ""),
        words.text("unit", ""),
        "",
        words.text("source", ""),
        words.text("better", "higher"),
    )
    sft = found.object("sft").text("name", "the SFT checkpoint")
    said = facts(found, ("trace", "choice", "objective"))
    return Tuning(sft, objective, _choice(found.object("choice")), trials, found.number("seconds"), said)


def _trial(found: Fields) -> Trial:
    return Trial(
        *_setting(found),
        _estimate(found),
        found.whole("prompts", 0),
        found.whole("group", 0),
        numbers(found, "signals"),
        found.number("seconds") or 0.0,
        found.truth("cached", False),
        found.text("stopped", ""),
    )


def _choice(found: Fields) -> Choice:
    half = found.maybe("against_half")
    return Choice(
        *_setting(found),
        _estimate(found),
        found.number("probability_best"),
        found.text("says", ""),
        half.number("difference") if half else None,
        half.interval() if half else None,
    )


def _setting(found: Fields) -> tuple[float, float]:
    return found.real("alpha"), found.real("rho", 0.0)


def _estimate(found: Fields) -> Estimate | None:
    value = found.number("value")
    return None if value is None else Estimate(value, found.interval())
