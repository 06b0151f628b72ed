# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A drawing with its caption, its legend, and links that save it: the picture as SVG, the numbers as CSV."""

import base64
import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .axes import LETTER
from .style import FILE_STYLE
from .text import clipped_end, safe

# Longer legends would take more room than their curves.
_OPEN = 5


@dataclass(frozen=True)
class Drawing:
    """The inside of an SVG, in its own units; a phone shows them at nearly one pixel each."""

    width: float
    height: float
    body: str


@dataclass(frozen=True)
class Key:
    """A line of a legend: the style sheet's classes, and a name."""

    style: str
    name: str


@dataclass(frozen=True)
class Words:
    """What a figure says of itself."""

    title: str
    note: str
    """One sentence about what is seen; may be empty."""
    alternative: str
    """For those who do not see it."""
    file: str
    """Name of the downloads, without a suffix; any letters."""


def figure(
    words: Words,
    drawing: Drawing,
    keys: Sequence[Key],
    rows: Iterable[Sequence[object]],
    identity: str,
    files: bool = True,
) -> str:
    """An HTML figure.

    Args:
        words: caption and names.
        drawing: the picture.
        keys: the legend; none is shown for less than two.
        rows: of the CSV file, its heading first.
        identity: unique in the page.
        files: whether picture and numbers can be saved.
    """
    links = f'<span class="save">{svg_link(words, drawing, keys)} {csv_link(rows, words.file)}</span>' if files else ""
    note = f"<p>{safe(words.note)}</p>" if words.note else ""
    return (
        f"<figure><figcaption>{links}<b>{safe(words.title)}</b>{note}{_legend(keys)}</figcaption>"
        f'<svg role="img" viewBox="0 0 {drawing.width:g} {drawing.height:g}" aria-labelledby="{identity}t {identity}d">'
        f'<title id="{identity}t">{safe(words.title)}</title><desc id="{identity}d">{safe(words.alternative)}</desc>'
        f"{drawing.body}</svg></figure>"
    )


def _legend(keys: Sequence[Key]) -> str:
    """Names beside their colours; of many the first and the last, and the others fold away."""
    if len(keys) < 2:
        return ""
    listed = [f'<i class="{key.style}"></i>{safe(key.name)}' for key in keys]
    legend = f'<ul class="legend">{"".join(f"<li>{each}</li>" for each in listed)}</ul>'
    if len(keys) <= _OPEN:
        return legend
    few = f"{listed[0]} \N{HORIZONTAL ELLIPSIS} {listed[-1]}"
    return f"<details><summary>{few} ({len(keys)} lines)</summary>{legend}</details>"


def csv_link(rows: Iterable[Sequence[object]], name: str, text: str = "CSV") -> str:
    """A link that saves ``rows`` as a file, out of the page itself. No cell is a formula to a spreadsheet."""
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return _link(name, "csv", "text/csv", written.getvalue(), text, "numbers")


def _cell(value: object) -> object:
    """A text that a spreadsheet would calculate gets an apostrophe in front (OWASP, CSV injection)."""
    return f"'{value}" if isinstance(value, str) and value.lstrip()[:1] in ("=", "+", "-", "@") else value


def svg_link(words: Words, drawing: Drawing, keys: Sequence[Key]) -> str:
    """A link that saves the drawing with title and legend, on white, in a file that needs no style sheet."""
    room, legend = _legend_rows(keys, drawing.width, top=34)
    width, height = drawing.width, drawing.height + room
    title = clipped_end(words.title, int(drawing.width / (1.15 * LETTER)))
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{2 * width:g}" '
        f'height="{2 * height:g}" role="img"><title>{safe(words.title)}</title><desc>{safe(words.alternative)}</desc>'
        f'<style>{FILE_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'<text class="title" x="4" y="18">{safe(title)}</text>{legend}'
        f'<g transform="translate(0 {room:g})">{drawing.body}</g></svg>'
    )
    return _link(words.file, "svg", "image/svg+xml", text, "SVG", "picture")


def _legend_rows(keys: Sequence[Key], width: float, top: float) -> tuple[float, str]:
    """Height of title and legend in a file, and the legend."""
    if len(keys) < 2:
        return top - 8, ""
    parts, x, y = [], 4.0, top
    for key in keys:
        name = clipped_end(key.name, int(width / LETTER) - 6)
        wide = 30 + LETTER * len(name)
        if x > 4 and x + wide > width:
            x, y = 4.0, y + 15
        parts.append(
            f'<line class="key {key.style}" x1="{x:.0f}" x2="{x + 16:.0f}" y1="{y - 4:.0f}" y2="{y - 4:.0f}"/>'
            f'<text x="{x + 20:.0f}" y="{y:.0f}">{safe(name)}</text>'
        )
        x += wide
    return y + 8, "".join(parts)


def _link(name: str, suffix: str, kind: str, text: str, shown: str, what: str) -> str:
    data = base64.b64encode(text.encode("utf-8", "replace")).decode()
    file = "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in name)[:80]
    says = f"Save the {what} of {safe(name)} as {suffix.upper()}"
    return f'<a download="{file}.{suffix}" href="data:{kind};base64,{data}" aria-label="{says}">{shown}</a>'
