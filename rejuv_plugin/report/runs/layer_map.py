# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A layered metric over time: layers by steps, a colour for each value."""

from ..page.document import Detail
from ..page.figure import Words, figure
from ..page.heat import Side, ends, heat

Rows = list[tuple[int, list[float | None]]]
"""Step and one value a layer."""


def layer_map(
    title: str, unit: str, rows: Rows, limits: tuple[float, float], detail: Detail, identity: str, run: str
) -> str:
    """An HTML figure.

    Args:
        title: of the metric.
        unit: of its values.
        rows: by ascending step, at least one; a row may be shorter than others.
        limits: the smallest and largest value of the colours, the same in all maps of a metric.
        detail: of more rows than its columns equally spaced ones are drawn, the last among them.
        identity: unique in the page.
        run: name of the run.
    """
    measured = len(rows)
    every = -(-measured // detail.columns)
    rows = rows[::-1][::every][::-1]
    layers = max(1, *(len(values) for _, values in rows))
    padded = [(step, [*values, *[None] * (layers - len(values))]) for step, values in rows]
    drawing = heat(
        [[values[layer] for _, values in padded] for layer in range(layers)],
        limits,
        unit,
        Side(ends([str(layer) for layer in range(layers)]), "by layer"),
        Side(ends([str(step) for step, _ in rows]), "RL step (columns: measurements)"),
    )
    said = f"Heat map of {layers} layers over {len(rows)} measurements, from {limits[0]:.3g} to {limits[1]:.3g}."
    table = [("step", *(f"layer {layer}" for layer in range(layers))), *((step, *values) for step, values in padded)]
    note = f"{len(rows)} of {measured} measurements" if len(rows) < measured else ""
    words = Words(f"{title} of {run}", note, said, f"{title} {run}")
    return figure(words, drawing, (), table, identity, files=detail.files)
