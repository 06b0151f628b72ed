# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The picture of the study: what each start of RL reaches, and its paired difference to fusion, seed by seed."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from analyse import IN, OUT, Row, after, before, interval, values
from arms import ARMS

SHOWN = (
    "over",
    "reset",
    "reset_random",
    "fusion",
    "fusion_reset",
    "fusion_random",
    "fusion_bottom",
    "moderate",
    "base",
)
COLOR = {IN: "#0072B2", OUT: "#D55E00"}
TITLE = {IN: "in distribution", OUT: "out of distribution"}


def draw(rows: Mapping[str, Mapping[int, Row]], path: Path) -> None:
    """Write a PNG of two rows (in and out of distribution) by two columns (levels, differences to fusion)."""
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    arms = [name for name in reversed(SHOWN) if name in rows]
    figure, axes = plt.subplots(2, 2, figsize=(12, 8), dpi=100, layout="constrained", sharey=True)
    for (level, difference), where in zip(axes, (IN, OUT), strict=True):
        color = COLOR[where]
        for y, arm in enumerate(arms):
            ends = values(rows, arm, lambda r, w=where: after(r, w))
            starts = values(rows, arm, lambda r, w=where: before(r, w))
            found = interval(list(ends.values()))
            level.plot(list(ends.values()), [y - 0.28] * len(ends), ".", color=color, alpha=0.4)
            level.errorbar(found.mean, y, xerr=[[found.mean - found.low], [found.high - found.mean]], color=color,
                           fmt="s", capsize=4, linewidth=2)  # fmt: skip
            level.plot(interval(list(starts.values())).mean, y, "o", color=color, fillstyle="none")
            fused = values(rows, "fusion", lambda r, w=where: after(r, w))
            both = [ends[seed] - fused[seed] for seed in sorted(set(ends) & set(fused))]
            if arm != "fusion" and both:
                found = interval(both)
                difference.plot(both, [y - 0.28] * len(both), ".", color=color, alpha=0.4)
                difference.errorbar(found.mean, y, xerr=[[found.mean - found.low], [found.high - found.mean]],
                                    color=color, fmt="s", capsize=4, linewidth=2)  # fmt: skip
        level.set_yticks(range(len(arms)), [f"{ARMS[arm].says}  ({len(rows[arm])})" for arm in arms])
        level.set(title=f"Accuracy, {TITLE[where]}", xlim=(0, None))
        difference.set(title=f"After RL, minus fusion, {TITLE[where]}")
        difference.axvline(0, color="#666666", linewidth=1)
        for axis in (level, difference):
            axis.grid(alpha=0.25, axis="x")
    legend = "hollow: mean before RL; squares: means after RL with 95 % confidence intervals (right: paired by seed)"
    figure.suptitle(f"{legend}; dots: seeds; (n): how many", fontsize=10)
    figure.savefig(path)
    plt.close(figure)
