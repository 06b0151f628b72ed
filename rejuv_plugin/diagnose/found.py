# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What was found about one checkpoint: numbers with intervals, values by layer, by module, by position, and curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from ..ops.bootstrap import Estimate


@dataclass(frozen=True)
class Found:
    """By signal. What could not be measured is left out, or None."""

    numbers: dict[str, Estimate | None] = field(default_factory=dict)
    layers: dict[str, Sequence[float]] = field(default_factory=dict)
    """One value a decoder layer; NaN where a layer has none."""
    modules: dict[str, dict[str, Any]] = field(default_factory=dict)
    positions: dict[str, dict[str, Any]] = field(default_factory=dict)
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)
    """Why there is no number, where that was not asked for."""

    def __or__(self, other: "Found") -> "Found":
        return Found(
            self.numbers | other.numbers,
            self.layers | other.layers,
            self.modules | other.modules,
            self.positions | other.positions,
            self.curves | other.curves,
            self.not_measured | other.not_measured,
        )

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Of metrics.json: every one of ``names`` among the numbers, null where there is none; no NaN anywhere."""
        numbers = {name: _estimate(self.numbers.get(name)) for name in names}
        parts = {"layers": self.layers, "modules": self.modules, "positions": self.positions, "curves": self.curves}
        found = {"numbers": numbers} | {name: finite(part) for name, part in parts.items()}
        return found | {"not_measured": self.not_measured}


def plain(value: float | None) -> Estimate | None:
    """A number without an interval; None if there is no number."""
    return Estimate(float(value), None) if value is not None and isfinite(value) else None


def curve(x: Sequence[float], y: Sequence[float], x_label: str, y_label: str) -> dict[str, Any]:
    """One of `Found.curves`."""
    return {"x": list(x), "y": list(y), "x_label": x_label, "y_label": y_label}


def finite(value: Any) -> Any:
    """The same of lists, mappings and numbers, with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _estimate(found: Estimate | None) -> dict[str, Any]:
    if found is None:
        return {"value": None, "interval": None}
    return {"value": found.value, "interval": list(found.interval) if found.interval else None}
