# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Runs as a report sees them: series by metric, layers by metric, alarms."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ...monitors.alarms import METRIC, Alarms
from ...monitors.history import ALARMS, PLASTICITY, Record, read_alarms, read_steps
from ...monitors.rules import RULES
from ..page.axes import drawable
from ..page.plot import Points


@dataclass(frozen=True)
class Raised:
    """One alarm of a run. ``ended``: the step at which it ended, None if it never did."""

    name: str
    step: int
    since: int
    seen: str
    ended: int | None


@dataclass(frozen=True)
class Run:
    """What is known of one run."""

    name: str
    first_step: int
    last_step: int
    measured: int
    """Number of steps."""
    metrics: dict[str, Points]
    layers: dict[str, list[tuple[int, list[float | None]]]]
    """By metric: step and one value a layer."""
    alarms: list[Raised]
    measured_for: list[str]
    """Rules that all their metrics were there for, in some step."""
    judged: list[str]
    """Those that could judge a step: some need several, or a baseline, first."""


def load_runs(directories: Sequence[Path], key: str) -> list[Run]:
    """Read runs; each is named by the shortest end of its path that tells it from the others.

    Raises:
        InputError: named ``key`` or by the directory; see `monitors.history`.
    """
    resolved = [directory.expanduser().resolve() for directory in directories]
    if len(set(resolved)) < len(resolved):
        raise InputError(key, "different runs", "the same directory twice", "name each run once")
    return [_load(path, given, name) for path, given, name in zip(resolved, directories, _names(resolved), strict=True)]


def _names(paths: Sequence[Path]) -> list[str]:
    parts = max((len(path.parts) for path in paths), default=1)
    for length in range(1, parts + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _load(path: Path, given: Path, name: str) -> Run:
    key = str(given)
    if not path.is_dir():
        got = "a file" if path.exists() else "nothing there"
        raise InputError(key, "the directory of a run", got, "give the run's trainer.default_local_dir")
    records = read_steps(path / PLASTICITY, key)
    metrics: dict[str, Points] = {}
    layers: dict[str, list[tuple[int, list[float | None]]]] = {}
    for record in records:
        for metric, value in record["metrics"].items():
            if (number := drawable(value)) is not None:
                metrics.setdefault(metric, []).append((record["step"], number))
        for metric, row in record.get("layers", {}).items():
            layers.setdefault(metric, []).append((record["step"], [drawable(value) for value in row]))
    could = {metric.removeprefix(METRIC) for metric in metrics if metric.startswith(METRIC)}
    if (path / ALARMS).exists():
        alarms = read_alarms(path / ALARMS, key)
    else:
        alarms, judged_now = _judged_now(records)
        could |= judged_now
    measured_for = [rule.name for rule in RULES if all(name in metrics for name in rule.reads)]
    judged = [rule.name for rule in RULES if rule.name in could]
    # Step 0 is no step of training; a run may have got no further.
    trained = [record["step"] for record in records if record["step"]] or [0]
    return Run(name, trained[0], trained[-1], len(trained), metrics, layers, _raised(alarms), measured_for, judged)


def _judged_now(records: Sequence[Record]) -> tuple[list[Record], set[str]]:
    """What the rules say of a run that has written no alarms, as none were raised or they were off; and which could
    judge."""
    alarms = Alarms()
    told = [alarm.to_json() for record in records for alarm in alarms.look(record["step"], record["metrics"])]
    return told, {metric.removeprefix(METRIC) for metric in alarms.metrics()}


def _raised(records: Sequence[Record]) -> list[Raised]:
    found: list[Raised] = []
    for record in records:
        if record["event"] != "ended":
            found.append(Raised(record["name"], record["step"], record["since"], record["seen"], None))
            continue
        for index, alarm in enumerate(found):
            if alarm.name == record["name"] and alarm.ended is None:
                found[index] = Raised(alarm.name, alarm.step, alarm.since, alarm.seen, record["step"])
    return found
