# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Two pictures: levels along the ladder and the grid of alphas, and how well each signal ranks the rungs."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from analyse import IN, OUT, Row, after, before, interval, values
from depths import CONTROLS, GRID, OVER, RUNGS, STARTS
from picture import COLOR, TITLE
from predict import BASELINE, VERDICT, Prediction

STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}


def draw_ladder(rows: Mapping[str, Mapping[int, Row]], path: Path) -> None:
    """Left: before (hollow) and after RL by depth of SFT. Right: after RL by alpha of the fusion, with the controls."""
    plt.rcParams.update(STYLE)
    rungs = [(0, "base"), *((epochs, f"sft{epochs}") for epochs in RUNGS)]
    grid = [*((STARTS[name].alpha, name) for name in GRID), (1.0, OVER)]
    figure, (depth, alpha) = plt.subplots(1, 2, figsize=(12, 5), dpi=100, layout="constrained", sharey=True)
    for where in (IN, OUT):
        for axis, places in ((depth, list(enumerate(rungs))), (alpha, [(a, (a, name)) for a, name in grid])):
            shown = [(x, name) for x, (_, name) in places if name in rows]
            if not shown:
                continue
            means = [interval(list(values(rows, name, lambda r, w=where: after(r, w)).values())) for _, name in shown]
            starts = [interval(list(values(rows, name, lambda r, w=where: before(r, w)).values())) for _, name in shown]
            xs = [x for x, _ in shown]
            halves = [[mean.mean - mean.low for mean in means], [mean.high - mean.mean for mean in means]]
            axis.errorbar(xs, [mean.mean for mean in means], yerr=halves, color=COLOR[where], fmt="s-", capsize=3,
                          label=f"after RL, {TITLE[where]}")  # fmt: skip
            axis.plot(xs, [mean.mean for mean in starts], "o--", color=COLOR[where], fillstyle="none", linewidth=1,
                      label=f"before RL, {TITLE[where]}")  # fmt: skip
            for x, name in shown:
                ends = list(values(rows, name, lambda r, w=where: after(r, w)).values())
                axis.plot([x] * len(ends), ends, ".", color=COLOR[where], alpha=0.35, markersize=5)
    for marker, name in zip("^vX", (name for name in CONTROLS if name in rows), strict=False):
        mean = interval(list(values(rows, name, lambda r: after(r, IN)).values()))
        halves = [[mean.mean - mean.low], [mean.high - mean.mean]]
        alpha.errorbar(0.5 + 0.025 * ("^vX".index(marker) + 1), mean.mean, yerr=halves, fmt=marker, capsize=3,
                       color="#333333", label=f"{STARTS[name].says}, in distribution")  # fmt: skip
    depth.set_xticks(range(len(rungs)), ["base", *map(str, RUNGS)])
    depth.set(xlabel="epochs of SFT", ylabel="accuracy (pass@1)", title="RL from each rung", ylim=(0, None))
    alpha.set(
        xlabel="alpha: weight of the SFT checkpoint in the fusion", title="RL from fusions of the rung of 64 epochs"
    )
    figure.legend(*alpha.get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside lower center", ncols=4)
    for axis in (depth, alpha):
        axis.grid(alpha=0.25, axis="y")
    figure.savefig(path)
    plt.close(figure)


def draw_predictions(found: list[Prediction], path: Path) -> None:
    """Rho of each signal over the rungs of a ladder: mean over all seeds with its interval; mean over the held-out."""
    plt.rcParams.update(STYLE)
    shown = found[::-1]
    figure, axis = plt.subplots(figsize=(8, 1 + 0.24 * len(shown)), dpi=100, layout="constrained")
    for y, each in enumerate(shown):
        color = "#D55E00" if each.name == BASELINE else "#009E73" if each.name == VERDICT else "#0072B2"
        mean = each.everywhere
        axis.errorbar(
            mean.mean, y, xerr=[[mean.mean - mean.low], [mean.high - mean.mean]], fmt="s", color=color, capsize=3
        )
        if each.held_out:
            axis.plot(each.held_out.mean, y, "o", color=color, fillstyle="none", markersize=9)
    axis.set_yticks(range(len(shown)), [each.name for each in shown])
    axis.axvline(0, color="#666666", linewidth=1)
    axis.set(xlim=(-1.05, 1.05), xlabel="Spearman's rho with the level after RL, over 8 rungs\n"
             "squares: all seeds with 95 % intervals; rings: held-out seeds")  # fmt: skip
    axis.grid(alpha=0.25, axis="x")
    figure.savefig(path)
    plt.close(figure)
