# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A layered metric over time: layers by steps, a colour for each value.

One pixel a value, as a PNG that the page scales up.
"""

import base64
import struct
import zlib
from collections.abc import Sequence

from .axes import csv_link, safe, scale

Rows = list[tuple[int, list[float | None]]]
"""Step and one value a layer."""

# viridis, at equal distances: even steps to the eye, and in grey.
_COLOURS = ("440154", "482878", "3e4a89", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725")
_ANCHORS = [tuple(int(colour[i : i + 2], 16) for i in (0, 2, 4)) for colour in _COLOURS]

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 420, 44, 62, 24, 36


def layer_map(
    title: str, unit: str, rows: Rows, limits: tuple[float, float], most: int, identity: str, run: str
) -> str:
    """An HTML figure.

    Args:
        title: of the metric.
        unit: of its values.
        rows: by ascending step, at least one; a row may be shorter than others.
        limits: the smallest and largest value of the colours, the same in all maps of a metric.
        most: columns; of more rows, equally spaced ones are drawn, the last among them.
        identity: unique in the page.
        run: name of the run.
    """
    every = -(-len(rows) // most)
    rows = rows[::-1][::every][::-1]
    layers = max(1, *(len(values) for _, values in rows))
    height = min(340, max(110, 60 + 12 * layers))
    left, right, upper, lower = _LEFT, _WIDTH - _RIGHT, _TOP, height - _BOTTOM
    axis = scale(limits, most=4)
    image = _png([[_value(values, layer) for _, values in rows] for layer in reversed(range(layers))], limits)
    parts = [
        f'<text class="unit" x="4" y="14">{safe(unit + axis.unit)}, by layer</text>',
        f'<image x="{left}" y="{upper}" width="{right - left}" height="{lower - upper}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{image}"/>',
    ]
    for layer in sorted({0, (layers - 1) // 2, layers - 1}):
        at = lower - (lower - upper) * (layer + 0.5) / layers + 3.5
        parts.append(f'<text x="{left - 5}" y="{at:.1f}" text-anchor="end">{layer}</text>')
    for column in sorted({0, (len(rows) - 1) // 2, len(rows) - 1}):
        at = left + (right - left) * (column + 0.5) / len(rows)
        parts.append(f'<text x="{at:.1f}" y="{lower + 13}" text-anchor="middle">{rows[column][0]}</text>')
    parts.append(
        f'<text x="{(left + right) / 2}" y="{lower + 28}" text-anchor="middle">RL step (columns: measurements)</text>'
    )
    ramp = _png([[limits[0] + (limits[1] - limits[0]) * (31 - i) / 31] for i in range(32)], limits)
    parts.append(
        f'<image x="{right + 8}" y="{upper}" width="10" height="{lower - upper}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{ramp}"/>'
    )
    for value, at in ((limits[1], upper + 8), (limits[0], lower)):
        parts.append(f'<text x="{right + 22}" y="{at}">{value / 10.0**axis.exponent:.3g}</text>')
    said = f"Heat map of {layers} layers over {len(rows)} measurements, from {limits[0]:.3g} to {limits[1]:.3g}."
    table = [("step", *(f"layer {layer}" for layer in range(layers))), *((step, *values) for step, values in rows)]
    return (
        f"<figure><figcaption>{csv_link(table, f'{title} {run}')}<b>{safe(title)}</b><p>{safe(run)}</p></figcaption>"
        f'<svg role="img" viewBox="0 0 {_WIDTH} {height}" aria-labelledby="{identity}t {identity}d"><title '
        f'id="{identity}t">{safe(title)}, {safe(run)}</title><desc id="{identity}d">{safe(said)}</desc>'
        f"{''.join(parts)}</svg></figure>"
    )


def _value(values: Sequence[float | None], layer: int) -> float | None:
    return values[layer] if layer < len(values) else None


def _colour(value: float | None, limits: tuple[float, float]) -> bytes:
    """Red, green, blue, opacity; nothing at all for a missing value."""
    if value is None:
        return bytes(4)
    low, high = limits
    at = (value - low) / (high - low) * (len(_ANCHORS) - 1) if high > low else 0.0
    index = min(int(at), len(_ANCHORS) - 2)
    pair = zip(_ANCHORS[index], _ANCHORS[index + 1], strict=True)
    return bytes([*(round(a + (b - a) * (at - index)) for a, b in pair), 255])


def _png(pixels: Sequence[Sequence[float | None]], limits: tuple[float, float]) -> str:
    """Base64 of a PNG, rows from the top."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", len(pixels[0]), len(pixels), 8, 6, 0, 0, 0)
    data = b"".join(b"\0" + b"".join(_colour(value, limits) for value in row) for row in pixels)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")
    return base64.b64encode(png).decode()
