# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a metric is called, and what its row in docs/monitors.md says. Pages read this without torch."""

from dataclasses import dataclass

ACTOR, TRAINER = "actor/plasticity/", "training/plasticity/"
"""What names in verl's logs begin with: of what the workers measure, and the trainer."""

QUANTILES = {"q05": 0.05, "q50": 0.5, "q95": 0.95}
"""Of a layered metric, over its layers: ``<name>_layers/q05``."""


@dataclass(frozen=True)
class Metric:
    """One row of the table in docs/monitors.md."""

    name: str
    """Below `ACTOR` or `TRAINER`. Never with ``max`` or ``min`` in it: verl's
    ``reduce_metrics`` would take that extreme of a list in place of its mean."""
    meaning: str
    unit: str
    """And the range: ``nats, >= 0``."""
    healthy: str
    """What to expect of a policy that learns; `no threshold is known` where that is so."""
    cost: str
    reduction: str
    """Over what, and how: ``mean over response tokens``."""
    source: str
