# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The file: one HTML document that loads nothing, runs nothing and stays below a limit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ... import __version__
from ...checkpoint.target import check_writable
from ...errors import InputError
from .style import STYLE
from .text import safe

LIMIT = 5_000_000
"""Bytes of a page; what is drawn gets less until it is kept."""


@dataclass(frozen=True)
class Detail:
    """How much of a page is drawn."""

    points: int
    """Of a curve, at most."""
    columns: int
    """Of a map over time, at most."""
    files: bool
    """Whether maps can be saved."""


# What is looked at last goes first: files of maps, then their columns, and the curves at the end.
_DETAILS = (
    *(Detail(300, 100, True), Detail(300, 100, False), Detail(300, 30, False), Detail(300, 10, False)),
    *(Detail(points, 10, False) for points in (150, 75, 30, 10)),
)

_GENERATOR = '<meta name="generator" content="rejuv report">'

# Nothing is loaded and nothing runs, whatever a name may say.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def check_output(path: Path, key: str) -> None:
    """Check, before any work, that a report can be written to ``path``; an older report there may be replaced.

    Raises:
        InputError: named ``key``.
    """
    if path.suffix != ".html":
        raise InputError(key, "a .html file", str(path), "give it that suffix")
    if path.exists() and not is_report(path):
        got = f"{path}, which is something else"
        raise InputError(key, "a new file, or an older report to replace", got, "give another path or remove it")
    check_writable(path.resolve().parent, key)


def is_report(path: Path) -> bool:
    """Whether it is a page of ours."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _GENERATOR.encode() in file.read(1000)


def fitting(draw: Callable[[Detail], str], key: str, got: str) -> str:
    """A page below `LIMIT`, with as much detail as it can hold.

    Args:
        draw: makes the page.
        key: how the error names what was given.
        got: what was given, in words.

    Raises:
        InputError: named ``key``; so much was given that no page could hold it.
    """
    for detail in _DETAILS:
        text = draw(detail)
        if len(text.encode()) < LIMIT:
            return text
    raise InputError(key, f"what fits on a page of {LIMIT / 1e6:g} MB", got, "compare fewer at a time")


def document(title: str, menu: Sequence[tuple[str, str]], body: str) -> str:
    """The HTML document.

    Args:
        title: of the page, as text.
        menu: identities of headings, and what to call them.
        body: HTML below the main heading; its headings begin with ``h2``.
    """
    links = "".join(f'<a href="#{identity}">{safe(name)}</a>' for identity, name in menu)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{_GENERATOR}'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{safe(title)}</title><style>{STYLE}</style></head><body>"
        f'<a class="skip" href="#main">Skip to the verdict</a><header><h1>{safe(title)}</h1>'
        f'<nav aria-label="Sections">{links}</nav></header><main id="main" tabindex="-1">{body}</main>'
        f'<footer class="soft"><p>Made by rejuv {safe(__version__)}. Everything is in this file.</p></footer>'
        "</body></html>\n"
    )
