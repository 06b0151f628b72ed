# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What alarms and monitors said in the first half of each run, as Markdown: python analyse.py RUNS > result.md"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import stats

from rejuv_plugin.monitors.alarms import Alarm, Alarms
from rejuv_plugin.monitors.history import PLASTICITY, read_steps
from rejuv_plugin.monitors.rules import RULES

SAYS = {"over": "over-trained", "fusion": "rejuvenated (alpha 0.5)", "moderate": "moderate SFT"}
SIGNALS = (
    *("entropy", "top1_mass", "entropy_drop", "grad_norm", "update_ratio", "drift_start", "drift_base"),
    *("pass_rate", "zero_advantage_groups"),
)


def read_runs(root: Path) -> dict[tuple[str, int], dict]:
    """By arm and seed: the result, the steps and the alarms of each run."""
    found = {}
    for directory in sorted(root.glob("seed*-*")):
        if not (directory / "result.json").exists():
            continue
        result = json.loads((directory / "result.json").read_text())
        result["steps"] = read_steps(directory / PLASTICITY, str(directory))
        result["alarms"] = replayed(result["steps"])
        found[result["arm"], result["seed"]] = result
    return found


def replayed(steps: list[dict]) -> list[Alarm]:
    """Alarms by the rules as they are now: a study of hours need not be run again for a level that changed."""
    alarms = Alarms()
    return [alarm for step in steps for alarm in alarms.look(step["step"], step["metrics"])]


def interval(values: np.ndarray) -> str:
    """Mean and 95 % t-interval; of one value itself."""
    if len(values) == 1:
        return f"{values[0]:.3g}"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{values.mean():.3g} [{values.mean() - half:.3g}, {values.mean() + half:.3g}]"


def alarm_rows(runs: dict, arms: list[str], seeds: list[int], half: int) -> Iterator[list[str]]:
    yield ["alarm, raised by half of the budget", *(f"{SAYS[arm]}: seeds" for arm in arms)]
    for name in [*(rule.name for rule in RULES), "any"]:
        counts = []
        for arm in arms:
            raised = [
                {alarm.name for alarm in runs[arm, seed]["alarms"] if not alarm.ended and alarm.step <= half}
                for seed in seeds
            ]
            counts.append(sum(bool(names) if name == "any" else name in names for names in raised))
        if any(counts) or name == "any":
            yield [f"`{name}`" if name != "any" else "any of them", *(f"{count} of {len(seeds)}" for count in counts)]


def signal_rows(runs: dict, arms: list[str], seeds: list[int], half: int) -> Iterator[list[str]]:
    yield ["mean over the first half", *(SAYS[arm] for arm in arms), "over-trained - rejuvenated, paired", "AUC"]
    for name in SIGNALS:
        means = {}
        for arm in arms:
            rows = [[m for m in runs[arm, seed]["steps"] if m["step"] <= half] for seed in seeds]
            prefix = "training" if name in ("pass_rate", "zero_advantage_groups") else "actor"
            means[arm] = np.array([np.mean([m["metrics"][f"{prefix}/plasticity/{name}"] for m in r]) for r in rows])
        # Chance that a random over-trained run has the smaller value than a random rejuvenated one.
        below = (means["over"][:, None] < means["fusion"][None, :]).mean()
        yield [
            f"`{name}`",
            *(f"{means[arm].mean():.3g}" for arm in arms),
            interval(means["over"] - means["fusion"]),
            f"{max(below, 1 - below):.2f}",
        ]


def level_rows(runs: dict, arms: list[str], seeds: list[int]) -> Iterator[list[str]]:
    yield ["accuracy in distribution", *(SAYS[arm] for arm in arms)]
    for when in ("before", "after"):
        levels = {arm: np.array([runs[arm, seed][when]["nav_in"]["pass_at_1"] for seed in seeds]) for arm in arms}
        yield [f"{when} RL", *(interval(levels[arm]) for arm in arms)]


def markdown(rows: Iterator[list[str]]) -> str:
    head, *rest = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rest])


def main() -> None:
    runs = read_runs(Path(sys.argv[1]))
    arms = [arm for arm in SAYS if any(arm == found for found, _ in runs)]
    seeds = sorted(set.intersection(*({seed for arm, seed in runs if arm == name} for name in arms)))
    half = max(step["step"] for step in runs[arms[0], seeds[0]]["steps"]) // 2
    print(f"Seeds {', '.join(map(str, seeds))}; the first half of the budget is {half} steps.\n")
    for rows in (
        level_rows(runs, arms, seeds),
        alarm_rows(runs, arms, seeds, half),
        signal_rows(runs, arms, seeds, half),
    ):
        print(markdown(rows), end="\n\n")


if __name__ == "__main__":
    main()
