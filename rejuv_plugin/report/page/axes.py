# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Round numbers on axes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from .text import MINUS, clipped

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

LETTER = 6.2
"""Mean width of a letter, in a picture's units; an estimate, as fonts differ."""
_LONGEST = 13
"""Letters of a slanted label."""


def drawable(value: float | None) -> float | None:
    """``value``, if a picture can hold it: neither missing, NaN nor beyond 1e300; 0 for what is below 1e-300."""
    if value is None or not abs(value) < 1e300:
        return None
    return float(value) if abs(value) > 1e-300 else 0.0


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
    labels = tuple(f"{tick / 10.0**exponent:.{decimals}f}".replace("-", MINUS) for tick in ticks)
    return Scale(low, high, ticks, labels, exponent)


def step_ticks(first: int, last: int, most: int = 6) -> list[int]:
    """Round whole numbers between two steps."""
    every = max(1, round(_round_up((last - first) / most))) if last > first else 1
    return list(range(ceil(first / every) * every, last + 1, every))


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power: float = 10.0 ** floor(log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * (1 - 1e-9))


@dataclass(frozen=True)
class Bottom:
    """A horizontal axis: where it begins and ends, its ticks and what they say."""

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    slanted: bool = False
    names: Sequence[str] = ()
    """Of whole positions from 0, where the axis has names in place of numbers."""

    def share(self, x: float) -> float:
        """Where ``x`` lies: 0 at the left, 1 at the right."""
        return (x - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def says(self, x: float) -> float | str:
        """What ``x`` is called in a file."""
        return self.names[int(x)] if self.names else x

    @property
    def room(self) -> float:
        """Height of ticks and title below the axis, in the picture's units."""
        longest = max((len(text) for _, text in self.ticks), default=0)
        return 38.0 if not self.slanted else 30.0 + 0.7 * LETTER * longest


def steps(values: Iterable[int], title: str) -> Bottom:
    """An axis of whole numbers, from the first to the last of them; at least one."""
    found = list(values)
    first, last = min(found), max(found)
    return Bottom(title, first, last, [(step, str(step)) for step in step_ticks(first, last)])


def numbers(values: Iterable[float], title: str) -> Bottom:
    """An axis of finite numbers, with room to the next round one."""
    found = scale(values, most=6)
    return Bottom(title + found.unit, found.low, found.high, list(zip(found.ticks, found.labels, strict=True)))


def names(found: Sequence[str], title: str, width: float) -> Bottom:
    """An axis with a place for each name; slanted where they would touch in ``width``, and not all of very many."""
    each = width / max(1, len(found))
    slanted = any(LETTER * len(name) + 6 > each for name in found)
    every = max(1, ceil(12 / each)) if slanted else 1
    ticks = [(float(i), clipped(name, _LONGEST) if slanted else name) for i, name in enumerate(found) if i % every == 0]
    return Bottom(title, -0.5, len(found) - 0.5, ticks, slanted, found)
