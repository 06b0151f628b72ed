# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A diagnosis as its page sees it: what `rejuv diagnose` wrote into metrics.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...diagnose.made import FORMAT
from ...errors import InputError
from ..page.text import without_range
from .fields import Fields

FILE = "metrics.json"

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Signal:
    """What a signal means; empty where nothing is known."""

    name: str
    meaning: str = ""
    unit: str = ""
    healthy: str = ""
    source: str = ""
    better: str = ""

    @property
    def axis(self) -> str:
        """What an axis is labelled with."""
        return without_range(self.unit)

    @property
    def short(self) -> str:
        """The meaning without its second half."""
        return self.meaning.partition(";")[0]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, if it has one."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Reason:
    """One rule's finding: ``met`` where ``value`` is on the bad side of ``threshold``."""

    signal: str
    value: float
    interval: Interval
    threshold: float
    bad: str
    met: bool
    clear: bool
    says: str
    source: str


@dataclass(frozen=True)
class Verdict:
    """On one checkpoint."""

    level: str
    headline: str
    reasons: list[Reason]
    advice: list[str]
    not_judged: list[tuple[str, str]]
    """Signals that a rule left alone, and why."""


@dataclass(frozen=True)
class Curve:
    """Pairs of numbers, and what they are."""

    points: list[tuple[float, float]]
    x_label: str = ""
    y_label: str = ""


@dataclass(frozen=True)
class Grid:
    """A value a layer and kind of module; None where a layer has no such module."""

    rows: list[str]
    columns: list[str]
    values: list[list[float | None]]


@dataclass(frozen=True)
class Positions:
    """Means by position in the response; ``counts`` are the tokens behind each of them."""

    points: list[tuple[float, float]]
    counts: list[float]


@dataclass(frozen=True)
class Checkpoint:
    """The base, or a rung of the ladder; everything by signal."""

    name: str
    path: str
    role: str
    verdict: Verdict | None
    numbers: dict[str, Estimate]
    layers: dict[str, list[float | None]]
    modules: dict[str, Grid]
    positions: dict[str, Positions]
    curves: dict[str, Curve]
    not_measured: dict[str, str]
    """Why a number that was asked for is not there."""


@dataclass(frozen=True)
class Diagnosis:
    """All of it."""

    base: str
    signals: dict[str, Signal]
    """In reading order, those without a meaning last."""
    checkpoints: list[Checkpoint]
    facts: list[tuple[str, str]]
    """How it was made: names and values in words."""

    @property
    def judged(self) -> list[tuple[Checkpoint, Verdict]]:
        """Checkpoints that have a verdict, and it."""
        return [(each, each.verdict) for each in self.checkpoints if each.verdict]


def opened(data: Mapping[str, Any], what: str, file: str) -> Fields:
    """The outermost object, if it is a ``what`` of a format that is known here.

    Raises:
        InputError: named by ``file``.
    """
    found = Fields(data, file)
    if found.text("what", "nothing of ours") != what:
        got = found.text("what", "nothing of ours")
        raise InputError(f"{file}.what", f"{what!r}", f"{got!r:.60}", f"give the {file} that rejuv wrote")
    if found.whole("format") != FORMAT:
        got = str(found.whole("format"))
        raise InputError(f"{file}.format", str(FORMAT), got, "make the page with the version of rejuv that measured")
    return found


def read(metrics: Mapping[str, Any]) -> Diagnosis:
    """Check what metrics.json holds, and give it names.

    Raises:
        InputError: named by the place in the file that is not as it should be.
    """
    found = opened(metrics, "diagnosis", FILE)
    checkpoints = [_checkpoint(each) for each in found.each("checkpoints")]
    if not checkpoints:
        raise InputError(f"{FILE}.checkpoints", "at least one checkpoint", "none", "diagnose one")
    signals = {each.text("name"): _signal(each) for each in found.each("signals")}
    for checkpoint in checkpoints:
        for part in (checkpoint.numbers, checkpoint.layers, checkpoint.modules, checkpoint.positions):
            for name in part:
                signals.setdefault(name, Signal(name))
    base = found.object("base")
    return Diagnosis(base.text("name", "base"), signals, checkpoints, facts(found, ("signals", "checkpoints")))


def facts(found: Fields, without: tuple[str, ...]) -> list[tuple[str, str]]:
    """Everything that `found` says of how it was made: all but the parts that are shown elsewhere."""
    return [(name, value) for name, value in found.flat() if name.partition(".")[0] not in (*without, "format", "what")]


def _signal(found: Fields) -> Signal:
    words = {key: found.text(key, "") for key in ("meaning", "unit", "healthy", "source", "better")}
    return Signal(found.text("name"), **words)


def _checkpoint(found: Fields) -> Checkpoint:
    verdict, layers, missing = found.maybe("verdict"), found.maybe("layers"), found.maybe("not_measured")
    return Checkpoint(
        found.text("name"),
        found.text("path", ""),
        found.text("role", "sft"),
        _verdict(verdict) if verdict else None,
        numbers(found, "numbers"),
        {name: layers.numbers(name) for name in layers.names()} if layers else {},
        {name: _grid(each) for name, each in found.named("modules")},
        {name: _positions(each) for name, each in found.named("positions")},
        {
            name: Curve(_pairs(each, "x", "y"), each.text("x_label", ""), each.text("y_label", ""))
            for name, each in found.named("curves")
        },
        {name: missing.text(name) for name in missing.names()} if missing else {},
    )


def numbers(found: Fields, key: str) -> dict[str, Estimate]:
    """The estimates of an object, by name; those without a value are left out."""
    values = [(name, each.number("value"), each.interval()) for name, each in found.named(key)]
    return {name: Estimate(value, interval) for name, value, interval in values if value is not None}


def _verdict(found: Fields) -> Verdict:
    reasons = []
    for each in found.each("reasons"):
        value, threshold = each.number("value"), each.number("threshold")
        if value is None or threshold is None:
            continue
        words = (each.text("says", ""), each.text("source", ""))
        how = (each.text("bad"), each.truth("met"), each.truth("clear", True))
        reasons.append(Reason(each.text("signal"), value, each.interval(), threshold, *how, *words))
    not_judged = [(each.text("signal"), each.text("why", "")) for each in found.each("not_judged")]
    return Verdict(found.text("level"), found.text("headline", ""), reasons, found.texts("advice"), not_judged)


def _grid(found: Fields) -> Grid:
    grid = Grid(found.texts("rows"), found.texts("columns"), found.grid("values"))
    sizes = [len(row) for row in grid.values]
    if sizes != [len(grid.columns)] * len(grid.rows):
        expected = f"{len(grid.rows)} rows of {len(grid.columns)} values"
        raise InputError(f"{found.place}.values", expected, f"rows of {sizes!s:.40}", "give the file that rejuv wrote")
    return grid


def _positions(found: Fields) -> Positions:
    counts = [count or 0.0 for count in found.numbers("count")]
    points = _pairs(found, "position", "value")
    return Positions(points, counts if len(counts) == len(points) else [])


def _pairs(found: Fields, x: str, y: str) -> list[tuple[float, float]]:
    pairs = zip(found.numbers(x), found.numbers(y), strict=False)
    return sorted((a, b) for a, b in pairs if a is not None and b is not None)
