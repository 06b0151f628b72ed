# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The tables of a diagnosis: every number, what it means, how it was measured."""

from collections.abc import Sequence

from ..page.figure import csv_link
from ..page.table import table
from ..page.text import between, safe
from .read import Diagnosis


def values(found: Diagnosis) -> str:
    """A row a signal, a column a checkpoint; and all of it as a file."""
    names = [name for name in found.signals if any(name in each.numbers for each in found.checkpoints)]
    missing = "".join(
        f"<p>Not measured of {safe(each.name)}: <code>{safe(name)}</code>. {safe(why[:1].upper() + why[1:])}.</p>"
        for each in found.checkpoints
        for name, why in each.not_measured.items()
    )
    if not names:
        return f'<h2 id="numbers">Numbers</h2>{missing}' if missing else ""
    shown = []
    for name in names:
        estimates = [each.numbers.get(name) for each in found.checkpoints]
        cells = [between(e.value, e.interval) if e else "-" for e in estimates]
        shown.append([name, *cells, found.signals[name].unit])
    saved: list[Sequence[object]] = [("signal", "unit", "checkpoint", "value", "low", "high")]
    for name in names:
        for each in found.checkpoints:
            if estimate := each.numbers.get(name):
                ends = estimate.interval or (None, None)
                saved.append((name, found.signals[name].unit, each.name, estimate.value, *ends))
    head = ["signal", *(each.name for each in found.checkpoints), "unit and range"]
    kinds = ["name", *["number"] * len(found.checkpoints), "text"]
    return (
        '<h2 id="numbers">Numbers</h2><p class="soft">In brackets: 95 % intervals. '
        f"{csv_link(saved, 'numbers', 'All of them as CSV')}</p>{missing}{table(head, shown, kinds, 'Every number')}"
    )


def catalogue(found: Diagnosis) -> str:
    """What the signals mean."""
    known = [signal for signal in found.signals.values() if signal.meaning]
    if not known:
        return ""
    rows = [[s.name, s.meaning, s.unit, s.healthy, s.source] for s in known]
    head = ["signal", "meaning", "unit and range", "healthy", "source"]
    shown = table(head, rows, ["name", "text", "", "text", "text"], "What the signals mean")
    return f'<h2 id="meaning">What the signals mean</h2>{shown}'


def made(facts: Sequence[tuple[str, str]]) -> str:
    """How it was measured."""
    shown = table(["what", "value"], facts, ["name", "text"], "How it was measured")
    return f'<h2 id="made">How it was measured</h2>{shown}'
