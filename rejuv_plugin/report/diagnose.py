# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A diagnosis as a table for the console."""

from typing import Any

from rich.table import Table
from rich.text import Text

from .page.text import between

_STYLES = {"ready": "green", "at_risk": "yellow", "over_trained": "red", "too_weak": "magenta"}


def table(metrics: dict[str, Any]) -> Table:
    """A row a checkpoint: verdict, entropy, pass@1 and pass@k, why.

    Args:
        metrics: what metrics.json holds.
    """
    found = Table("checkpoint", "verdict", title="Before RL")
    for name in ("entropy (nats)", "pass@1", "pass@k"):
        found.add_column(name, justify="right")
    found.add_column("why")
    for row in metrics["checkpoints"]:
        verdict, numbers = row["verdict"], row["numbers"]
        level = verdict["level"] if verdict else "base"
        entropy = "entropy" if numbers["entropy_sampled"]["value"] is None else "entropy_sampled"
        found.add_row(
            # Names are data: no markup in them.
            Text(row["name"]),
            Text(level.replace("_", " "), style=_STYLES.get(level, "")),
            *(
                between(numbers[name]["value"], numbers[name]["interval"])
                for name in (entropy, "pass_at_1", "pass_at_k")
            ),
            Text(verdict["headline"] if verdict else ""),
        )
    return found
