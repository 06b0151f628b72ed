# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a metric's name means: rows of the monitors' catalogues, and a few metrics of verl's own."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...monitors.alarms import METRIC
from ...monitors.metric import ACTOR, TRAINER, Metric
from ..page.text import without_range

OURS = (ACTOR, TRAINER)
"""Prefixes of the monitors' metrics."""


@dataclass(frozen=True)
class Meaning:
    """A metric in words; empty where nothing is known."""

    meaning: str = ""
    unit: str = ""
    healthy: str = ""
    reduction: str = ""
    source: str = ""

    @property
    def axis(self) -> str:
        """What an axis is labelled with."""
        return without_range(self.unit)


_VERL = {
    "critic/score/mean": Meaning("mean score of the rollouts", "score", "rises", "mean over rollouts", "verl"),
    "critic/rewards/mean": Meaning("mean reward, penalties included", "reward", "rises", "mean over rollouts", "verl"),
    "val-core/": Meaning("score on held-out problems", "score", "rises; read with its start", "see its name", "verl"),
    "actor/grad_norm": Meaning(
        "gradient norm before clipping", "L2 norm", "says nothing alone: read it with the update ratio",
        "mean over updates of a step", "verl",
    ),
    "actor/lr": Meaning("learning rate", "per update", "as configured", "at the end of the step", "verl"),
    "response_length/": Meaning("length of the responses", "tokens", "no sudden fall or rise", "see its name", "verl"),
    "timing_s/step": Meaning("wall time of the step", "seconds", "steady", "one a step", "verl"),
    "actor/entropy": Meaning("token entropy as verl has it", "nats", "falls slowly", "as its loss is", "verl"),
    "actor/ppo_kl": Meaning(
        "how far the policy is from the one that sampled", "nats", "near 0", "mean over updates of a step", "verl",
    ),
    "num_turns/": Meaning("turns of an episode", "turns", "steady", "see its name", "verl"),
    "timing_s/": Meaning("wall time of a part of the step", "seconds", "steady", "sum over the step", "verl"),
}  # fmt: skip


class Meanings:
    """Looks names up."""

    def __init__(self, catalogue: Sequence[Metric]) -> None:
        self._ours = {
            row.name: Meaning(row.meaning, row.unit, row.healthy, row.reduction, row.source) for row in catalogue
        }

    def of(self, name: str) -> Meaning:
        """Of a full metric name, a layered one's without ``_layers/...``: the row of that name, or of its parent."""
        for prefix in OURS:
            name = name.removeprefix(prefix)
        known = self._ours | _VERL
        found = [row for row in known if name == row or name.startswith(row if row.endswith("/") else row + "/")]
        return known[max(found, key=len)] if found else Meaning()

    @property
    def rows(self) -> dict[str, Meaning]:
        """All of the catalogue, by name."""
        return self._ours


def base_of(name: str) -> str:
    """``name`` without the suffix of a quantile over layers, or of one layer."""
    return name.partition("_layers/")[0]


def hidden(name: str) -> bool:
    """Alarms have their own place; of layers the median stands for all quantiles, and the rest is in the maps."""
    base, _, rest = name.partition("_layers/")
    return base.startswith(METRIC) or rest not in ("", "q50")
