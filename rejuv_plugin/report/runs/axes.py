# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Round numbers on axes, and text that is safe in a page."""

import base64
import csv
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def safe(text: object) -> str:
    """``text`` for HTML, in an element or a quoted attribute. What UTF-8 cannot say becomes a question mark."""
    return html.escape(str(text).encode("utf-8", "replace").decode("utf-8"), quote=True)


def short(value: float | None) -> str:
    """A number for a table."""
    return "-" if value is None else f"{value:.4g}"


def csv_link(rows: Iterable[Sequence[object]], name: str) -> str:
    """A link that saves ``rows`` as a file, out of the page itself."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    data = base64.b64encode(text.getvalue().encode("utf-8", "replace")).decode()
    file = "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in name)
    return f'<a class="csv" download="{file}.csv" href="data:text/csv;base64,{data}">CSV</a>'


@dataclass(frozen=True)
class Scale:
    """An axis from ``low`` to ``high``, in units of 10 to the ``exponent``, which is 0 for handy numbers."""

    low: float
    high: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    exponent: int

    def share(self, value: float) -> float:
        """Where ``value`` lies: 0 at ``low``, 1 at ``high``."""
        return (value - self.low) / (self.high - self.low)

    @property
    def unit(self) -> str:
        """`` (×10⁻⁹)``, or nothing."""
        return f" (\N{MULTIPLICATION SIGN}10{str(self.exponent).translate(_SUPERSCRIPT)})" if self.exponent else ""


def scale(values: Iterable[float], most: int = 5) -> Scale:
    """An axis for finite ``values``, with round ticks; from 0 if they are positive and come near it."""
    found = list(values) or [0.0]
    low, high = min(found), max(found)
    if 0 <= low < high / 2:
        low = 0.0
    # Numbers that float64 hardly tells apart are one number to the eye.
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = abs(high) / 10 or 1.0
        low, high = low - room, high + room
    step = _round_up((high - low) / most)
    low, high = (low if low == 0 else floor(low / step) * step), ceil(high / step - 1e-9) * step
    largest = max(abs(low), abs(high))
    exponent = floor(log10(largest)) if largest >= 1e4 or largest < 1e-2 else 0
    ticks = tuple(low + index * step for index in range(round((high - low) / step) + 1))
    decimals = max(0, exponent - floor(log10(step) + 1e-9))
    labels = tuple(f"{tick / 10.0**exponent:.{decimals}f}".replace("-", "\N{MINUS SIGN}") for tick in ticks)
    return Scale(low, high, ticks, labels, exponent)


def step_ticks(first: int, last: int, most: int = 6) -> list[int]:
    """Round whole numbers between two steps."""
    every = max(1, round(_round_up((last - first) / most))) if last > first else 1
    return list(range(ceil(first / every) * every, last + 1, every))


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power: float = 10.0 ** floor(log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * (1 - 1e-9))
