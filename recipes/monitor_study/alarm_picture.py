# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What the alarm `zero_advantage` reads, and where the runs ended: python alarm_picture.py ROWS PNG"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from alarm_tables import Runs, below_best, early, mean_of, of_all_seeds, read_runs, says
from plots import STYLE
from predict import BAD

from rejuv_plugin.monitors.rules import RULES

SIGNAL = "training/plasticity/zero_advantage_groups"
SMOOTHED = 5
# From the deepest SFT to the shallowest, and the fusion of the rung of 64 epochs.
SHOWN = {"sft128": "#7A2E00", "sft64": "#D55E00", "sft32": "#E69F00", "sft4": "#56B4E9", "alpha_0.5": "#0072B2"}


def draw(runs: Runs, path: Path) -> None:
    """Left: the signal over steps, means over seeds. Right: each run, its signal by half against its end."""
    plt.rcParams.update(STYLE)
    figure, (curves, ends) = plt.subplots(1, 2, figsize=(12, 4.8), dpi=100, layout="constrained")
    for name, color in SHOWN.items():
        if name not in runs:
            continue
        values = np.array([row["metrics"][SIGNAL] for row in runs[name].values()], dtype=float).mean(0)
        smooth = np.convolve(values, np.ones(SMOOTHED) / SMOOTHED, "valid")
        curves.plot(np.arange(SMOOTHED, len(values) + 1), smooth, color=color, linewidth=2, label=says(name))
    (level,) = (rule.level for rule in RULES if rule.name == "zero_advantage")
    for axis, line in ((curves, curves.axhline), (ends, ends.axvline)):
        line(level, color="#666666", linewidth=1, linestyle="--")
        axis.grid(alpha=0.25)
    title = f"Prompts without an advantage, mean of {SMOOTHED} steps and all seeds"
    curves.set(xlabel="step", ylabel="share of prompts", ylim=(0, 1), title=title)
    curves.legend(frameon=False, loc="upper left", fontsize=9, ncols=2)
    missing = below_best(runs)
    for warned, color, label in ((True, "#D55E00", "an alarm by half of the budget"), (False, "#0072B2", "none")):
        chosen = [run for run in missing if early(runs[run[0]][run[1]]) == warned]
        xs = [mean_of(runs[name][seed], SIGNAL) for name, seed in chosen]
        ends.plot(xs, [-missing[run] for run in chosen], "os"[warned], color=color, alpha=0.75,
                  label=f"{label} ({len(chosen)} runs)")  # fmt: skip
    ends.axhline(-BAD, color="#666666", linewidth=1, linestyle=":")
    ends.set(
        xlabel="share of prompts without an advantage, mean of the first half",
        ylabel="accuracy after RL, minus the seed's best",
        title="Each run: its first half and its end",
    )
    ends.legend(framealpha=1, edgecolor="none", fontsize=9)
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    draw(of_all_seeds(read_runs(Path(sys.argv[1]))), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
