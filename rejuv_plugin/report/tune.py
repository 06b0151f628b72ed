# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a search for alpha found, as a table for the console."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from .page.text import between


def table(found: Mapping[str, Any]) -> Table:
    """A row a setting that was tried: the objective, other signals, what it cost.

    Args:
        found: the content of tuning.json.
    """
    goal, chosen = found["objective"], found["choice"]
    rows = Table("alpha", title=f"{goal['name']}: {goal['meaning']}")
    rhos = len({row["rho"] for row in found["trace"]}) > 1
    for title in (*(["rho"] if rhos else []), f"{goal['name']} (95 %)", "pass@1", "pass@g", "with gradient", "entropy"):
        rows.add_column(title, justify="right")
    for title in ("prompts", "seconds"):
        rows.add_column(title, justify="right")
    rows.add_column("")
    for row in found["trace"]:
        best = (row["alpha"], row["rho"]) == (chosen["alpha"], chosen["rho"])
        signals = [row["signals"][name]["value"] for name in _SIGNALS]
        rows.add_row(
            f"{row['alpha']:g}",
            *([f"{row['rho']:g}"] if rhos else []),
            between(row["value"], row["interval"]),
            *("" if value is None else f"{value:.3f}" for value in signals),
            f"{row['prompts']}",
            "cached" if row["cached"] else f"{row['seconds']:.1f}",
            "<- chosen" if best else "left early" if row["stopped"] else "",
            style="bold" if best else None,
        )
    return rows


_SIGNALS = ("pass_at_1", "pass_at_k", "gradient_share", "entropy_sampled")
