# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A table of numbers as colours: one pixel a value, as a PNG that the picture scales up."""

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from .axes import LETTER, scale
from .figure import Drawing
from .text import clipped, clipped_end, safe

# viridis, at equal distances: even steps to the eye, and in grey.
_COLOURS = ("440154", "482878", "3e4a89", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725")
_ANCHORS = [tuple(int(colour[i : i + 2], 16) for i in (0, 2, 4)) for colour in _COLOURS]

_RIGHT, _TOP, _BOTTOM = 62, 24, 36
_LONGEST = 14
"""Letters of a column's name."""


@dataclass(frozen=True)
class Side:
    """Rows or columns: a name for some of them, by index, and what they are."""

    ticks: Sequence[tuple[int, str]]
    title: str
    slanted: bool = False


def ends(names: Sequence[str]) -> list[tuple[int, str]]:
    """The first, the middle and the last of ``names``."""
    return [(index, names[index]) for index in sorted({0, (len(names) - 1) // 2, len(names) - 1})]


def heat(
    values: Sequence[Sequence[float | None]],
    limits: tuple[float, float],
    unit: str,
    rows: Side,
    columns: Side,
    width: int = 420,
) -> Drawing:
    """A heat map with its colour bar.

    Args:
        values: rows from the bottom, of the same length, at least one by one; nothing is drawn for a missing value.
        limits: the smallest and largest value of the colours.
        unit: of the values, said above the picture.
        rows, columns: what is written beside it.
        width: of the drawing, in its units.
    """
    count, across = len(values), len(values[0])
    beside = max((len(clipped(name, 8)) for _, name in rows.ticks), default=1)
    left, right = max(44, round(10 + LETTER * beside)), width - _RIGHT
    below = max((len(clipped(name, _LONGEST)) for _, name in columns.ticks), default=0)
    bottom = round(30 + 0.72 * LETTER * below) if columns.slanted else _BOTTOM
    inner = min(280, max(50, 12 * count))
    upper, lower = _TOP, _TOP + inner
    axis = scale(limits, most=4)
    said = clipped_end(f"{unit}{axis.unit}, {rows.title}", int((width - 8) / LETTER))
    parts = [
        f'<text class="unit" x="4" y="14">{safe(said)}</text>',
        _image([list(row) for row in reversed(values)], limits, left, upper, right - left, inner),
    ]
    for row, name in rows.ticks:
        at = lower - inner * (row + 0.5) / count + 3.5
        parts.append(f'<text x="{left - 5}" y="{at:.1f}" text-anchor="end">{safe(clipped(name, 8))}</text>')
    for column, name in columns.ticks:
        at = left + (right - left) * (column + 0.5) / across
        if columns.slanted:
            place = f'transform="translate({at + 4:.1f} {lower + 12}) rotate(-45)" text-anchor="end"'
            name = clipped(name, _LONGEST)
        else:
            place = f'x="{at:.1f}" y="{lower + 13}" text-anchor="middle"'
        parts.append(f"<text {place}>{safe(name)}</text>")
    title = f'x="{(left + right) / 2:g}" y="{lower + bottom - 8}" text-anchor="middle"'
    ramp: list[list[float | None]] = [[limits[0] + (limits[1] - limits[0]) * (31 - i) / 31] for i in range(32)]
    parts += [
        f"<text {title}>{safe(columns.title)}</text>",
        _image(ramp, limits, right + 8, upper, 10, inner),
    ]
    for value, at in ((limits[1], upper + 8), (limits[0], lower)):
        parts.append(f'<text x="{right + 22}" y="{at}">{value / 10.0**axis.exponent:.3g}</text>')
    return Drawing(width, lower + bottom, "".join(parts))


def _image(
    pixels: Sequence[Sequence[float | None]], limits: tuple[float, float], x: int, y: int, width: int, height: int
) -> str:
    return (
        f'<image x="{x}" y="{y}" width="{width}" height="{height}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{_png(pixels, limits)}"/>'
    )


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
