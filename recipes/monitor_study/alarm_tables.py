# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What alarms and monitors said, and what became of the runs, as Markdown: python alarm_tables.py ROWS > result.md

Rules are those of today, on the metrics that were kept: a level that changed needs no new runs. "Half": the first half
of the budget. What they are compared with is where RL ended.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from analyse import IN, Interval, after, before, interval
from arms import ARMS
from collect import SIGNALS
from depths import GRID, LADDER, start_of
from predict import BAD, rank_correlation
from study import read_seeds

from rejuv_plugin.monitors.alarms import Alarm, Alarms
from rejuv_plugin.monitors.judges import START
from rejuv_plugin.monitors.rules import RULES

Row = Mapping[str, Any]
# By start and seed.
Runs = Mapping[str, Mapping[int, Row]]

# Over-trained and rejuvenated, as the two studies name them.
PAIRS = (("over", "fusion"), ("sft64", "alpha_0.5"))
ORDER = ("over", "fusion", "moderate", *LADDER, *GRID)
ENTROPY = "actor/plasticity/entropy"


def read_runs(rows: Path) -> dict[str, dict[int, Row]]:
    """By start, in the order of ORDER (others last), and seed."""
    found: dict[str, dict[int, Row]] = {name: {} for name in ORDER}
    for row in read_seeds(rows):
        found.setdefault(row["arm"], {})[row["seed"]] = row | {"alarms": replayed(row)}
    return {name: runs for name, runs in found.items() if runs}


def replayed(row: Row) -> list[Alarm]:
    """By the rules as they are now."""
    alarms, found = Alarms(), []
    for i, step in enumerate(row["steps"]):
        metrics = {name: values[i] for name, values in row["metrics"].items() if values[i] is not None}
        found += alarms.look(step, metrics)
    return found


def half(row: Row) -> int:
    return max(row["steps"]) // 2


def raised(row: Row) -> dict[str, int]:
    """Each alarm that was raised in the whole run, and the first step at which it was."""
    found: dict[str, int] = {}
    for alarm in row["alarms"]:
        if not alarm.ended:
            found.setdefault(alarm.name, alarm.step)
    return found


def early(row: Row) -> bool:
    """Whether any alarm was raised by half of the budget."""
    return any(step <= half(row) for step in raised(row).values())


def says(name: str) -> str:
    return ARMS[name].says if name in ARMS else start_of(name).says


def start_rows(runs: Runs) -> Iterator[list[str]]:
    """Levels, and who was warned when."""
    names = [rule.name for rule in RULES if any(rule.name in raised(r) for of in runs.values() for r in of.values())]
    entropy = f"token entropy, first {START} steps (nats)"
    yield ["start of RL", "seeds", entropy, "before RL", "after RL", *(f"`{name}`" for name in names), "any alarm"]
    for name, of_start in runs.items():
        rows = list(of_start.values())
        ends = [f"{interval([of(row, IN) for row in rows])}" for of in (before, after)]
        first = np.mean([row["metrics"][ENTROPY][:START] for row in rows])
        cells = [when([raised(row).get(alarm) for row in rows], half(rows[0])) for alarm in names]
        yield [says(name), str(len(rows)), f"{first:.3f}", *ends, *cells, f"{sum(map(early, rows))} of {len(rows)}"]


def when(steps: Sequence[int | None], by: int) -> str:
    """In how many runs by half of the budget, and at which steps; in how many only later."""
    soon = sorted(step for step in steps if step and step <= by)
    later = sum(bool(step and step > by) for step in steps)
    at = f" (step {soon[0]}{f' to {soon[-1]}' if soon[-1] != soon[0] else ''})" if soon else ""
    return f"{len(soon)} of {len(steps)}{at}{f', later {later}' if later else ''}"


def of_all_seeds(runs: Runs) -> Runs:
    """The starts that have every seed that any has."""
    return {name: of for name, of in runs.items() if len(of) == max(map(len, runs.values()))}


def below_best(runs: Runs) -> dict[tuple[str, int], float]:
    """By start and seed: accuracy after RL that is missing to the best start of the seed."""
    best = {seed: max(after(of[seed], IN) for of in runs.values() if seed in of) for of in runs.values() for seed in of}
    return {(name, seed): best[seed] - after(row, IN) for name, of in runs.items() for seed, row in of.items()}


def end_rows(runs: Runs) -> Iterator[list[str]]:
    """Were the warned runs those that ended low?"""
    missing = below_best(runs)
    yield ["by half of the budget", "runs", "accuracy after RL", "below the seed's best start", f"ended within {BAD}"]
    for name, wanted in (("an alarm", True), ("none", False)):
        rows = {(name, seed): row for name, of in runs.items() for seed, row in of.items() if early(row) == wanted}
        if rows:
            below = [missing[run] for run in rows]
            level, good = np.mean([after(row, IN) for row in rows.values()]), sum(each <= BAD for each in below)
            yield [name, str(len(rows)), f"{level:.3f}", f"{np.mean(below):.3f}", f"{good} of {len(rows)}"]


def mean_of(row: Row, signal: str) -> float:
    """Over the first half of the budget."""
    values = [value for value, step in zip(row["metrics"][signal], row["steps"], strict=True) if step <= half(row)]
    return float(np.mean([value for value in values if value is not None]))


def signal_rows(runs: Runs, over: str, fusion: str) -> Iterator[list[str]]:
    """Do the signals tell the two apart?"""
    yield ["mean over the first half", says(over), says(fusion), "difference, paired", "AUC"]
    seeds = sorted({*runs[over]} & {*runs[fusion]})
    for signal in SIGNALS:
        ours, theirs = (np.array([mean_of(runs[name][seed], signal) for seed in seeds]) for name in (over, fusion))
        below = (ours[:, None] < theirs[None, :]).mean() + (ours[:, None] == theirs[None, :]).mean() / 2
        difference = interval((ours - theirs).tolist())
        auc = f"{max(below, 1 - below):.2f}"
        yield [short(signal), f"{ours.mean():.3g}", f"{theirs.mean():.3g}", f"{difference:.3g}", auc]


def rank_rows(runs: Runs) -> Iterator[list[str]]:
    """How well each signal ranks the starts of a seed by where RL ends; the best first."""
    seeds = sorted(set.intersection(*(set(of) for of in runs.values())))
    levels = {seed: {name: after(of[seed], IN) for name, of in runs.items()} for seed in seeds}

    def rho(of: Mapping[int, Mapping[str, float]]) -> Interval:
        return interval([rank_correlation(of[seed], levels[seed]) or 0.0 for seed in seeds])

    found = {
        short(signal): rho({seed: {name: mean_of(of[seed], signal) for name, of in runs.items()} for seed in seeds})
        for signal in SIGNALS
    }
    found["accuracy before RL"] = rho(
        {seed: {name: before(of[seed], IN) for name, of in runs.items()} for seed in seeds}
    )
    yield ["mean over the first half", "Spearman's rho with the level after RL"]
    for name, each in sorted(found.items(), key=lambda item: -abs(item[1].mean)):
        yield [name, f"{each:+.2f}"]


def short(signal: str) -> str:
    return f"`{signal.rpartition('/')[2]}`"


def markdown(rows: Iterator[list[str]]) -> str:
    head, *rest = rows
    return "".join("| " + " | ".join(row) + " |\n" for row in [head, ["---"] * len(head), *rest])


def tables(runs: Runs) -> dict[str, str]:
    """By title. A start that only some seeds have is in the first table alone; many starts are ranked."""
    complete = of_all_seeds(runs)
    found = {"Starts and alarms": markdown(start_rows(runs)), "Alarms and ends": markdown(end_rows(complete))}
    for over, fusion in PAIRS:
        if {over, fusion} <= set(complete):
            found["Over-trained against rejuvenated"] = markdown(signal_rows(complete, over, fusion))
    if len(complete) > 3:
        found["What ranks the starts of a seed"] = markdown(rank_rows(complete))
    return found


def main() -> None:
    runs = read_runs(Path(sys.argv[1]))
    if not runs:
        raise SystemExit(f"{sys.argv[1]}: expected seed<N>.jsonl of collect.py, got none. Fix: run it first.")
    print("\n".join(f"### {title}\n\n{table}" for title, table in tables(runs).items()), end="")


if __name__ == "__main__":
    main()
