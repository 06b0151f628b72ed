# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a search for alpha found, in words and a table."""

from collections.abc import Mapping
from typing import Any


def summary(found: Mapping[str, Any]) -> None:
    """Print the curve, the choice, how sure it is and what it cost.

    Args:
        found: the content of tuning.json.
    """
    from rich.console import Console
    from rich.table import Table

    goal, chosen = found["objective"], found["choice"]
    table = Table("alpha", title=f"{goal['name']}: {goal['meaning']}")
    rhos = len({row["rho"] for row in found["trace"]}) > 1
    for title in (*(["rho"] if rhos else []), goal["name"], "95 %", "pass@1", "pass@g", "with gradient", "entropy"):
        table.add_column(title, justify="right")
    for title in ("prompts", "seconds"):
        table.add_column(title, justify="right")
    table.add_column("")
    for row in found["trace"]:
        best = (row["alpha"], row["rho"]) == (chosen["alpha"], chosen["rho"])
        signals = [row["signals"][name]["value"] for name in _SIGNALS]
        table.add_row(
            f"{row['alpha']:g}",
            *([f"{row['rho']:g}"] if rhos else []),
            f"{row['value']:.3f}",
            _interval(row["interval"]),
            *("" if value is None else f"{value:.3f}" for value in signals),
            f"{row['prompts']}",
            "cached" if row["cached"] else f"{row['seconds']:.1f}",
            "<- chosen" if best else "left early" if row["stopped"] else "",
            style="bold" if best else None,
        )
    # A log has no width of its own; a table that is folded there cannot be read.
    console = Console()
    Console(width=None if console.is_terminal else 160).print(table)
    print(f"{chosen['says']}.")
    print(f"{found['seconds']:.0f} s")


_SIGNALS = ("pass_at_1", "pass_at_k", "gradient_share", "entropy_sampled")


def _interval(interval: list[float] | None) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
