# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Curves over steps as SVG inside a page, whose style sheet colours them: a run has the same colour everywhere."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .axes import Scale, csv_link, safe, scale, step_ticks
from .run import Points

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 420, 52, 10, 28, 38
"""Of the picture, and around each panel, in the SVG's own units; a phone shows them at nearly one pixel each."""

COLOURS = 8
"""Runs after them are drawn in the same colours, dashed."""

# Longer legends would take more room than their curves.
_OPEN = 5


@dataclass(frozen=True)
class Series:
    """One run's line in a panel."""

    run: int
    points: Points
    low: Points = field(default_factory=list)
    high: Points = field(default_factory=list)
    """A band, at the same steps as each other; or none."""
    reference: bool = False
    """A thin dashed line: something to compare with."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    unit: str
    series: Sequence[Series]
    level: float | None = None
    """Where an alarm begins."""
    marks: Sequence[tuple[int, int, str]] = ()
    """Run, step and name of alarms that were raised over this metric."""


def figure(title: str, panels: Sequence[Panel], runs: Sequence[str], note: str, identity: str) -> str:
    """An HTML figure of panels, one above the other, with a legend and a link to its data.

    Args:
        title: of the figure.
        panels: none of them empty.
        runs: all names, in the order of their colours.
        note: one sentence about what is seen; may be empty.
        identity: unique in the page.
    """
    steps = [step for panel in panels for series in panel.series for step, _ in series.points]
    first, last = min(steps), max(steps)
    height = 194 if len(panels) == 1 else 154
    drawn = "".join(_panel(panel, first, last, index * height, height) for index, panel in enumerate(panels))
    shown = sorted({series.run for panel in panels for series in panel.series})
    legend = _legend(runs, shown) if len(runs) > 1 else ""
    said = f"Curves over steps {first} to {last} of {len(shown)} run{'s' if len(shown) > 1 else ''}. {note}"
    return (
        f"<figure><figcaption>{csv_link(_rows(panels, runs), title)}<b>{safe(title)}</b><p>{safe(note)}</p>{legend}"
        f'</figcaption><svg role="img" viewBox="0 0 {WIDTH} {height * len(panels)}" aria-labelledby="{identity}t '
        f'{identity}d"><title id="{identity}t">{safe(title)}</title><desc id="{identity}d">{safe(said)}</desc>{drawn}'
        "</svg></figure>"
    )


def _legend(runs: Sequence[str], shown: Sequence[int]) -> str:
    """Names beside their colours; many of them fold away."""
    keys = "".join(f'<li><i class="{style_of(index)}"></i>{safe(runs[index])}</li>' for index in shown)
    listed = f'<ul class="legend">{keys}</ul>'
    return listed if len(shown) <= _OPEN else f"<details><summary>{len(shown)} runs</summary>{listed}</details>"


def style_of(run: int) -> str:
    """The style sheet's classes for a run."""
    return f"c{run % COLOURS}" + (" again" if run >= COLOURS else "")


def _panel(panel: Panel, first: int, last: int, top: int, height: int) -> str:
    lines = [line for series in panel.series for line in (series.points, series.low, series.high)]
    level = [] if panel.level is None else [panel.level]
    axis = scale([value for line in lines for _, value in line] + level)
    left, right, upper, lower = LEFT, WIDTH - RIGHT, top + TOP, top + height - BOTTOM

    def x(step: int) -> float:
        return left + (right - left) * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return lower - (lower - upper) * axis.share(value)

    def path(points: Points) -> str:
        return " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)

    parts = [_frame(panel, axis, (left, right, upper, lower), {step: x(step) for step in step_ticks(first, last)})]
    for series in panel.series:
        style = style_of(series.run)
        if series.low and series.high:
            parts.append(f'<polygon class="band {style}" points="{path(series.low)} {path(series.high[::-1])}"/>')
        if len(series.points) == 1:
            ((step, value),) = series.points
            parts.append(f'<circle class="dot {style}" cx="{x(step):.1f}" cy="{y(value):.1f}" r="3"/>')
        else:
            kind = "reference" if series.reference else "line"
            parts.append(f'<polyline class="{kind} {style}" points="{path(series.points)}"/>')
    if panel.level is not None:
        at = y(panel.level)
        parts.append(f'<line class="level" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        over = at - 4 if at - upper > 14 else at + 11
        parts.append(f'<text class="level" x="{right - 2}" y="{over:.1f}" text-anchor="end">alarm</text>')
    for run, step, name in panel.marks:
        if first <= step <= last:
            mark = f"M{x(step):.1f} {upper + 8} l-5 -8 h10 z"
            parts.append(f'<path class="mark {style_of(run)}" d="{mark}"><title>{safe(name)}</title></path>')
    return "".join(parts)


def _frame(panel: Panel, axis: Scale, box: tuple[int, int, int, int], steps: dict[int, float]) -> str:
    left, right, upper, lower = box
    parts = [f'<text class="unit" x="4" y="{upper - 13}">{safe(panel.title)}: {safe(panel.unit + axis.unit)}</text>']
    for tick, label in zip(axis.ticks, axis.labels, strict=True):
        at = lower - (lower - upper) * axis.share(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{left - 5}" y="{at + 3.5:.1f}" text-anchor="end">{label}</text>')
    for step, at in steps.items():
        parts.append(f'<text x="{at:.1f}" y="{lower + 14}" text-anchor="middle">{step}</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{lower + 29}" text-anchor="middle">RL step</text>')
    return "".join(parts)


def _rows(panels: Sequence[Panel], runs: Sequence[str]) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = [("metric", "run", "step", "value", "q05", "q95")]
    for panel in panels:
        for series in panel.series:
            low, high = dict(series.low), dict(series.high)
            name = panel.title + (" (reference)" if series.reference else "")
            rows += [(name, runs[series.run], step, v, low.get(step), high.get(step)) for step, v in series.points]
    return rows
