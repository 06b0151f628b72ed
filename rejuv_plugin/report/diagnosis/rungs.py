# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Estimates as dots with whiskers, and the words that whiskers need."""

from collections.abc import Sequence

from ..page.plot import Line
from .read import Estimate


def rungs(key: int, values: Sequence[tuple[float, Estimate | None]]) -> Line:
    """Estimates by position; where there is none, there is no dot."""
    found = [(at, estimate) for at, estimate in values if estimate]
    bounds = [(at, estimate.interval) for at, estimate in found if estimate.interval]
    return Line(
        key,
        [(at, estimate.value) for at, estimate in found],
        [(at, low) for at, (low, _) in bounds],
        [(at, high) for at, (_, high) in bounds],
        "rungs",
    )


def noted(note: str, lines: Sequence[Line]) -> str:
    """``note``, and what the whiskers are, if there are any."""
    return "; ".join(filter(None, [note, "bars: 95 % intervals" if any(line.low for line in lines) else ""]))
