# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Lines over one horizontal axis as SVG, whose style sheet colours them: a line has the same colour everywhere."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from .axes import LETTER, Bottom, Scale, scale
from .figure import Drawing, Key
from .style import COLOURS, DEPTHS
from .text import clipped_end, safe, short

WIDTH, LEFT, RIGHT, TOP = 420, 52, 10, 28
"""Of the picture, and around each panel, in the SVG's own units."""
PLOT = WIDTH - LEFT - RIGHT
_TALL, _LOW = 128, 88
"""Height of the plot itself: of one panel, and of each of several."""

Points = list[tuple[float, float]]
"""Position and value, by ascending position."""


@dataclass(frozen=True)
class Line:
    """One line in a panel."""

    key: int
    """Of the figure's legend: colour and name."""
    points: Points
    low: Points = field(default_factory=list)
    high: Points = field(default_factory=list)
    """A band, or whiskers, at the same positions as each other; or none."""
    form: Literal["line", "reference", "rungs"] = "line"
    """``reference``: thin and dashed, something to compare with. ``rungs``: a dot a value, with whiskers."""


@dataclass(frozen=True)
class Panel:
    """One vertical axis."""

    title: str
    unit: str
    lines: Sequence[Line]
    levels: Sequence[tuple[float, str]] = ()
    """Where something begins, in words."""
    marks: Sequence[tuple[int, float, str]] = ()
    """Key, position and name of what happened there."""
    choices: Sequence[tuple[float, str]] = ()
    """Positions that were chosen, in words."""
    include: Sequence[float] = ()
    """Values that the axis must reach."""


def style_of(index: int) -> str:
    """The style sheet's classes of one of several things."""
    return f"c{index % COLOURS}" + (" again" if index >= COLOURS else "")


def depth_style(index: int, count: int) -> str:
    """The style sheet's classes of rung ``index`` of ``count``; of many, every other one is dashed."""
    at = index * (DEPTHS - 1) / max(1, count - 1)
    return f"d{round(at)}" + (" again" if count > DEPTHS and index % 2 else "")


def plot(panels: Sequence[Panel], bottom: Bottom, keys: Sequence[Key]) -> Drawing:
    """Panels above each other, none of them empty, that share an axis."""
    inner = _TALL if len(panels) == 1 else _LOW
    height = TOP + inner + bottom.room
    body = "".join(_panel(panel, bottom, keys, index * height, inner) for index, panel in enumerate(panels))
    return Drawing(WIDTH, round(height * len(panels)), body)


def rows(panels: Sequence[Panel], bottom: Bottom, keys: Sequence[Key], head: Sequence[str]) -> list[Sequence[object]]:
    """What `plot` draws, as a table for a file; ``head`` has six names: panel, line, position, value, low, high."""
    found: list[Sequence[object]] = [head]
    for panel in panels:
        for line in panel.lines:
            low, high = dict(line.low), dict(line.high)
            name = panel.title + (" (reference)" if line.form == "reference" else "")
            found += [(name, keys[line.key].name, bottom.says(x), y, low.get(x), high.get(x)) for x, y in line.points]
    return found


def thinned(points: Points, most: int) -> Points:
    """At most ``most`` points: means over equally many successive ones, at the middle one's step."""
    if len(points) <= most:
        return points
    every = -(-len(points) // most)
    chunks = [points[start : start + every] for start in range(0, len(points), every)]
    return [(chunk[len(chunk) // 2][0], fmean(value for _, value in chunk)) for chunk in chunks]


def _panel(panel: Panel, bottom: Bottom, keys: Sequence[Key], top: float, inner: float) -> str:
    drawn = [points for line in panel.lines for points in (line.points, line.low, line.high)]
    reached = [*(level for level, _ in panel.levels), *panel.include]
    axis = scale([value for points in drawn for _, value in points] + reached)
    left, right, upper = LEFT, WIDTH - RIGHT, top + TOP
    lower = upper + inner

    def x(position: float) -> float:
        return left + PLOT * bottom.share(position)

    def y(value: float) -> float:
        return lower - inner * axis.share(value)

    def path(points: Points) -> str:
        return " ".join(f"{x(position):.1f},{y(value):.1f}" for position, value in points)

    parts = [_frame(panel, axis, bottom, upper, lower)]
    for position, text in panel.choices:
        at, anchor = x(position), "end" if bottom.share(position) > 0.7 else "start"
        parts.append(f'<line class="choice" x1="{at:.1f}" x2="{at:.1f}" y1="{upper:g}" y2="{lower:g}"/>')
        parts.append(f'<text class="choice" x="{at:.1f}" y="{upper - 3:g}" text-anchor="{anchor}">{safe(text)}</text>')
    # Rungs of several lines stand beside each other, as their whiskers would hide one another.
    rungs = [line for line in panel.lines if line.form == "rungs"]
    for line in panel.lines:
        style = keys[line.key].style
        if line.form == "rungs":
            shift = 5.0 * (rungs.index(line) - (len(rungs) - 1) / 2)
            name = keys[line.key].name if len(keys) > 1 else panel.title
            parts += _rungs(line, style, name, [(x(p) + shift, y(v)) for p, v in line.points], y, bottom)
            continue
        if line.low and line.high:
            parts.append(f'<polygon class="band {style}" points="{path(line.low)} {path(line.high[::-1])}"/>')
        if len(line.points) == 1:
            ((position, value),) = line.points
            parts.append(f'<circle class="dot {style}" cx="{x(position):.1f}" cy="{y(value):.1f}" r="3"/>')
        else:
            parts.append(f'<polyline class="{line.form} {style}" points="{path(line.points)}"/>')
    places = [(x(position), y(value)) for points in drawn for position, value in points]
    for value, text in panel.levels:
        at = y(value)
        parts.append(f'<line class="level" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        start, over = _free(places, at, LETTER * len(text), (left, right, upper, lower))
        places += [(start + share * LETTER * len(text), over - 4) for share in (0.0, 0.5, 1.0)]
        parts.append(f'<text class="level" x="{start:.1f}" y="{over:.1f}">{safe(text)}</text>')
    for key, position, name in panel.marks:
        if bottom.low <= position <= bottom.high:
            mark = f"M{x(position):.1f} {upper + 8:g} l-5 -8 h10 z"
            parts.append(f'<path class="mark {keys[key].style}" d="{mark}"><title>{safe(name)}</title></path>')
    return "".join(parts)


def _free(
    places: Sequence[tuple[float, float]], at: float, wide: float, box: tuple[float, float, float, float]
) -> tuple[float, float]:
    """Where a level's words begin, and their base line: above or below it, at the end that is farthest from data."""
    left, right, upper, lower = box

    def room(start: float, over: float) -> float:
        if not upper < over - 8 < over < lower:
            return -1.0
        beside = [abs(over - 4 - y) for x, y in places if start - 8 < x < start + wide + 8]
        return min([*beside, lower - upper])

    spots = [(start, over) for start in (right - wide - 2, left + 4) for over in (at - 4, at + 11)]
    return max(spots, key=lambda spot: room(*spot))


def _rungs(
    line: Line,
    style: str,
    name: str,
    places: Sequence[tuple[float, float]],
    y: Callable[[float], float],
    bottom: Bottom,
) -> Iterator[str]:
    """A thin line through dots that say their value, with whiskers where there is an interval."""
    if len(places) > 1:
        yield f'<polyline class="line {style}" points="{" ".join(f"{at:.1f},{up:.1f}" for at, up in places)}"/>'
    low, high = dict(line.low), dict(line.high)
    for (position, value), (at, up) in zip(line.points, places, strict=True):
        said = f"{name}, {bottom.says(position)}: {short(value)}"
        if position in low and position in high:
            said += f" ({short(low[position])} to {short(high[position])})"
            ends = [y(low[position]), y(high[position])]
            yield f'<line class="whisker {style}" x1="{at:.1f}" x2="{at:.1f}" y1="{ends[0]:.1f}" y2="{ends[1]:.1f}"/>'
            for end in ends:
                caps = f'x1="{at - 3:.1f}" x2="{at + 3:.1f}" y1="{end:.1f}" y2="{end:.1f}"'
                yield f'<line class="whisker {style}" {caps}/>'
        yield f'<circle class="dot {style}" cx="{at:.1f}" cy="{up:.1f}" r="3.2"><title>{safe(said)}</title></circle>'


def _frame(panel: Panel, axis: Scale, bottom: Bottom, upper: float, lower: float) -> str:
    left, right = LEFT, WIDTH - RIGHT
    said = f"{panel.title}: {panel.unit}{axis.unit}" if panel.unit else panel.title + axis.unit
    unit = clipped_end(said, int((WIDTH - 8) / LETTER))
    parts = [f'<text class="unit" x="4" y="{upper - 15:g}">{safe(unit)}</text>']
    for tick, label in zip(axis.ticks, axis.labels, strict=True):
        at = lower - (lower - upper) * axis.share(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{left - 5}" y="{at + 3.5:.1f}" text-anchor="end">{label}</text>')
    for position, label in bottom.ticks:
        at = left + PLOT * bottom.share(position)
        if bottom.slanted:
            place = f'transform="translate({at + 4:.1f} {lower + 12:g}) rotate(-45)" text-anchor="end"'
        else:
            place = f'x="{at:.1f}" y="{lower + 14:g}" text-anchor="middle"'
        parts.append(f"<text {place}>{safe(label)}</text>")
    title = f'x="{(left + right) / 2:g}" y="{lower + bottom.room - 9:g}" text-anchor="middle"'
    return "".join([*parts, f"<text {title}>{safe(clipped_end(bottom.title, int(PLOT / LETTER) + 5))}</text>"])
