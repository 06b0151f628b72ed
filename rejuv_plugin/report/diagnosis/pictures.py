# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The figures of a diagnosis: numbers along the ladder, and each checkpoint by layer, by position, along a curve."""

from collections.abc import Callable, Mapping, Sequence

from ..page.axes import Bottom, names, numbers, steps
from ..page.figure import Key, Words, figure
from ..page.heat import Side, heat
from ..page.plot import PLOT, Line, Panel, Points, depth_style, plot, rows, style_of, thinned
from ..page.text import counted
from .read import Diagnosis, Signal
from .sections import FLOOR, Group


def ladder(group: Group, found: Diagnosis, identity: str) -> str:
    """Numbers with their intervals, from the base to the last checkpoint."""
    bottom = names([each.name for each in found.checkpoints], "checkpoint, in the order given", PLOT)
    lines, keys = [], []
    for index, name in enumerate(group.names):
        has = [(i, each.numbers[name]) for i, each in enumerate(found.checkpoints) if name in each.numbers]
        bounds = [(i, estimate.interval) for i, estimate in has if estimate.interval]
        lines.append(
            Line(
                index,
                [(i, estimate.value) for i, estimate in has],
                [(i, low) for i, (low, _) in bounds],
                [(i, high) for i, (_, high) in bounds],
                "rungs",
            )
        )
        keys.append(Key(style_of(index), name))
    unit = found.signals[group.names[0]].axis
    panel = Panel(group.title, unit, lines, _levels(group.names, found))
    notes = [found.signals[name].short for name in group.names]
    if any(line.low for line in lines):
        notes.append("bars: 95 % intervals")
    note = "; ".join(dict.fromkeys(note for note in notes if note))
    said = f"{', '.join(group.names)} of {counted(len(found.checkpoints), 'checkpoint')}, in {unit}. {note}"
    table = rows([panel], bottom, keys, ("figure", "signal", "checkpoint", "value", "low", "high"))
    return figure(
        Words(group.title, note, said, f"ladder {group.title}"), plot([panel], bottom, keys), keys, table, identity
    )


def _levels(signals: Sequence[str], found: Diagnosis) -> list[tuple[float, str]]:
    """Thresholds of the verdict, and p*(g) where pass rates are."""
    levels: dict[float, str] = {}
    for each in found.checkpoints:
        if "pass_at_1" in signals and FLOOR in each.numbers:
            value = each.numbers[FLOOR].value
            levels[value] = f"p*(g) = {value:.3g}"
        for reason in each.verdict.reasons if each.verdict else ():
            if reason.signal in signals:
                levels.setdefault(reason.threshold, f"bad {reason.bad} {reason.threshold:.3g}")
    return list(levels.items())


def by_layer(signal: Signal, found: Diagnosis, identity: str) -> str:
    """One line a checkpoint over its layers."""
    lines = {
        index: [(float(layer), value) for layer, value in enumerate(each.layers[signal.name]) if value is not None]
        for index, each in enumerate(found.checkpoints)
        if signal.name in each.layers
    }
    words = (f"{signal.name}, by layer", signal.axis, signal.short)
    return _checkpoints(words, lines, _whole("layer"), found, identity)


def by_position(signal: Signal, found: Diagnosis, most: int, identity: str) -> str:
    """One line a checkpoint over positions in the response."""
    shown = {
        i: each.positions[signal.name] for i, each in enumerate(found.checkpoints) if signal.name in each.positions
    }
    notes = [signal.short] if signal.short else []
    if counts := [count for positions in shown.values() for count in positions.counts]:
        notes.append(f"each point: mean over {min(counts):,.0f} to {max(counts):,.0f} tokens")
    words = (f"{signal.name}, by position", signal.axis, "; ".join(notes))
    lines = {index: thinned(positions.points, most) for index, positions in shown.items()}
    return _checkpoints(words, lines, _whole("position in the response, tokens"), found, identity)


def curve(signal: Signal, found: Diagnosis, most: int, identity: str) -> str:
    """One line a checkpoint; beside a reliability diagram the line on which confidence is right."""
    shown = {i: each.curves[signal.name] for i, each in enumerate(found.checkpoints) if signal.name in each.curves}
    lines = {index: _some(each.points, most) for index, each in shown.items()}
    first = next(iter(shown.values()), None)
    x_label, y_label = (first.x_label or "x", first.y_label or signal.axis) if first else ("x", signal.axis)

    def bottom(reached: Sequence[float]) -> Bottom:
        return numbers(reached, x_label)

    if signal.name.startswith("calibration"):
        note = "dashed: confidence that is right as often as it says; below it a model is too sure"
        ideal = Key("base", "as sure as right"), [(0.0, 0.0), (1.0, 1.0)]
        return _checkpoints(("Reliability diagram", y_label, note), lines, bottom, found, identity, ideal)
    return _checkpoints((f"{signal.name}, the curve", y_label, ""), lines, bottom, found, identity)


def maps(signal: Signal, found: Diagnosis, identity: str) -> list[str]:
    """A heat map of layers by modules for each checkpoint, all with the same colours."""
    grids = {i: each.modules[signal.name] for i, each in enumerate(found.checkpoints) if signal.name in each.modules}
    values = [value for grid in grids.values() for row in grid.values for value in row if value is not None]
    if not values:
        return []
    limits = min(values), max(values)
    drawn = []
    for index, grid in grids.items():
        if not grid.values or not grid.columns:
            continue
        name = found.checkpoints[index].name
        layers = [row.rpartition(".")[2] for row in grid.rows]
        every = -(-len(layers) // _LAYERS_NAMED)
        drawing = heat(
            grid.values,
            limits,
            signal.axis,
            Side([(i, layer) for i, layer in enumerate(layers) if i % every == 0], "by layer"),
            Side(list(enumerate(grid.columns)), "module", slanted=True),
            width=320,
        )
        said = (
            f"Heat map of {len(grid.rows)} layers by {len(grid.columns)} modules, {limits[0]:.3g} to {limits[1]:.3g}."
        )
        table = [("layer", *grid.columns), *((row, *line) for row, line in zip(grid.rows, grid.values, strict=True))]
        words = Words(name, f"{signal.name}, by layer and module", said, f"{signal.name} {name}")
        drawn.append(figure(words, drawing, (), table, f"{identity}c{index}"))
    return drawn


_LAYERS_NAMED = 12
"""Rows of a map that have a name beside them."""


def _whole(title: str) -> Callable[[Sequence[float]], Bottom]:
    return lambda reached: steps((int(x) for x in reached), title)


def _some(points: Points, most: int) -> Points:
    """At most ``most`` of the points, at equal distances, both ends among them."""
    if len(points) <= most:
        return points
    return [points[round(index * (len(points) - 1) / (most - 1))] for index in range(most)]


def _checkpoints(
    words: tuple[str, str, str],
    lines: Mapping[int, Points],
    axis: Callable[[Sequence[float]], Bottom],
    found: Diagnosis,
    identity: str,
    ideal: tuple[Key, Points] | None = None,
) -> str:
    """One line a checkpoint, the base dashed and the others from cold to hot; nothing where there are no points.

    Args:
        words: title, what is on the vertical axis, and a note.
        lines: by index of the checkpoint.
        axis: makes the horizontal axis that reaches all positions.
        found: the checkpoints.
        identity: unique in the page.
        ideal: what all lines are compared with.
    """
    lines = {index: points for index, points in lines.items() if points}
    if not lines:
        return ""
    title, unit, note = words
    rungs = [index for index, each in enumerate(found.checkpoints) if each.role != "base"]
    keys, drawn = [], []
    for key, (index, points) in enumerate(lines.items()):
        style = depth_style(rungs.index(index), len(rungs)) if index in rungs else "base"
        keys.append(Key(style, found.checkpoints[index].name))
        drawn.append(Line(key, points))
    if ideal:
        drawn.append(Line(len(keys), ideal[1], form="reference"))
        keys.append(ideal[0])
    bottom = axis([x for line in drawn for x, _ in line.points])
    panel = Panel(unit, "", drawn)
    said = f"{unit} over {bottom.title}; {counted(len(lines), 'checkpoint')}. {note}"
    table = rows([panel], bottom, keys, ("value of", "checkpoint", bottom.title, "value", "low", "high"))
    return figure(Words(title, note, said, title), plot([panel], bottom, keys), keys, table, identity)
