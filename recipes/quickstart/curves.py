# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The picture of a run: 1200 x 900 pixels, four panels, colours that colour-blind readers can tell apart."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from summarise import ArmResult

# Okabe and Ito's palette; the markers tell the arms apart in grey too.
STYLE = {
    "over": ("#D55E00", "o"),
    "rejuvenated": ("#0072B2", "s"),
    "reset": ("#CC79A7", "P"),
    "moderate": ("#009E73", "^"),
    "base": ("#666666", "D"),
}

WINDOW = 5


def smooth(values: list[float], window: int = WINDOW) -> list[float]:
    """Mean of the last `window` values."""
    return [sum(values[max(0, i + 1 - window) : i + 1]) / min(i + 1, window) for i in range(len(values))]


def draw(results: list["ArmResult"], path: Path) -> None:
    """Write the picture."""
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(2, 2, figsize=(12, 9), dpi=100, layout="constrained")
    curves = (
        (axes[0, 0], "reward_curve", "Reward in training", "share of right answers"),
        (axes[1, 0], "entropy_curve", "Token entropy in training", "nats per token"),
        (axes[1, 1], "gradient_share_curve", "Groups that GRPO can learn from", "share of groups with mixed rewards"),
    )
    for axis, field, title, unit in curves:
        for result in results:
            values, (color, marker) = getattr(result, field), STYLE[result.arm]
            steps = range(1, len(values) + 1)
            axis.plot(steps, values, color=color, alpha=0.25, linewidth=1)
            every = max(1, len(values) // 8)
            line = {"color": color, "marker": marker, "markevery": every, "linewidth": 2.2, "label": result.label}
            axis.plot(steps, smooth(values), **line)
        axis.set(title=title, xlabel="RL step", ylabel=unit, ylim=(0, None))
        axis.grid(alpha=0.25)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    note = f"thick: mean of {WINDOW} steps; thin: each step"
    figure.legend(handles, labels, loc="outside upper center", ncols=len(results), frameon=False, title=note)

    axis, ticks, names = axes[0, 1], [], []
    blocks = {"accuracy_in": "in distribution", "accuracy_out": "out of distribution"}
    for block, (field, where) in enumerate(blocks.items()):
        for index, result in enumerate(results):
            x, change, (color, marker) = block * (len(results) + 1) + index, getattr(result, field), STYLE[result.arm]
            arrow = {"arrowstyle": "-|>", "color": color, "lw": 2}
            axis.annotate("", xy=(x, change.after), xytext=(x, change.before), arrowprops=arrow)
            axis.plot(x, change.before, marker=marker, color=color, fillstyle="none", markersize=9)
            axis.plot(x, change.after, marker=marker, color=color, markersize=9)
            axis.text(x + 0.12, change.after, f"{change.after:.2f}", va="center", fontsize=10)
        ticks.append(block * (len(results) + 1) + (len(results) - 1) / 2)
        names.append(where)
    axis.set_xticks(ticks, names)
    axis.set(title="Held-out problems: before RL (hollow) and after (filled)", ylabel="accuracy", ylim=(-0.02, None))
    axis.set_xlim(-0.7, 2 * len(results) + 0.7)
    axis.grid(alpha=0.25, axis="y")
    figure.savefig(path)
    plt.close(figure)
