# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The report of one run or several: one HTML file that needs nothing else, the verdict first."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ... import __version__
from ...checkpoint.small_file import write_text
from ...checkpoint.target import check_writable
from ...errors import InputError
from .axes import safe
from .meaning import Meanings
from .run import Run
from .sections import figures_of, grouped, maps_of
from .style import STYLE
from .verdict import cards, comparison, glossary, last_values

if TYPE_CHECKING:
    from ...monitors.monitor import Metric

LIMIT = 5_000_000
"""Bytes of a page; curves are thinned until it is kept."""

_GENERATOR = '<meta name="generator" content="rejuv report">'

# Nothing is loaded and nothing runs, whatever a metric's name may say.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def check_output(path: Path, key: str) -> None:
    """Check, before any work, that a report can be written to ``path``; an older report there may be replaced.

    Raises:
        InputError: named ``key``.
    """
    if path.suffix != ".html":
        raise InputError(key, "a .html file", str(path), "give it that suffix")
    if path.exists() and not _is_report(path):
        got = f"{path}, which is something else"
        raise InputError(key, "a new file, or an older report to replace", got, "give another path or remove it")
    check_writable(path.resolve().parent, key)


def _is_report(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _GENERATOR.encode() in file.read(1000)


def write(runs: Sequence[Run], catalogue: Sequence["Metric"], path: Path) -> None:
    """Write the page, all or nothing; a file that is there is replaced (`check_output` first)."""
    write_text(path, page(runs, catalogue))


def page(runs: Sequence[Run], catalogue: Sequence["Metric"]) -> str:
    """The page; the same for the same input. Of very many runs or metrics fewer points are drawn, to keep `LIMIT`.

    Args:
        runs: at least one, in the order of their colours.
        catalogue: the monitors' metrics, for tables and axes; others are shown without words.

    Raises:
        InputError: so many runs that no page could hold them.
    """
    meanings = Meanings(catalogue)
    for most in (300, 150, 75, 30, 10):
        text = _page(runs, meanings, most)
        if len(text.encode()) < LIMIT:
            return text
    got = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    raise InputError("RUN_DIR", f"what fits on a page of {LIMIT / 1e6:g} MB", got, "compare fewer at a time")


def _page(runs: Sequence[Run], meanings: Meanings, most: int) -> str:
    names = [run.name for run in runs]
    title = f"RL and plasticity: {', '.join(names)}" if len(names) < 4 else f"RL and plasticity of {len(names)} runs"
    parts = [cards(runs), comparison(runs)]
    sections = grouped(runs)
    for index, (section, metrics) in enumerate(sections):
        figures = "".join(figures_of(section, metrics, runs, meanings, most))
        blurb = f'<p class="soft">{safe(section.blurb)}</p>' if section.blurb else ""
        parts.append(f'<h2 id="s{index}">{safe(section.title)}</h2>{blurb}<div class="figures">{figures}</div>')
    maps = _maps(runs, meanings, most)
    parts += [maps, last_values(runs, meanings), glossary(meanings)]
    links = [(f"s{index}", section.title) for index, (section, _) in enumerate(sections)]
    links += [("layers", "Layers")] if maps else []
    links += [("values", "Last values"), ("glossary", "Glossary")]
    menu = "".join(f'<a href="#{identity}">{safe(name)}</a>' for identity, name in links)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{_GENERATOR}'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{safe(title)}</title><style>{STYLE}</style></head><body><header><h1>{safe(title)}</h1>"
        f"<nav>{menu}</nav></header><main>{''.join(parts)}</main>"
        f'<footer class="soft"><p>Made by rejuv report {safe(__version__)}. Everything is in this file.</p></footer>'
        "</body></html>\n"
    )


def _maps(runs: Sequence[Run], meanings: Meanings, most: int) -> str:
    names = sorted({name for run in runs for name in run.layers})
    found = [(name, maps_of(name, runs, meanings, max(10, most // 3), f"m{i}")) for i, name in enumerate(names)]
    blocks = [
        f'<details{" open" if index == 0 else ""}><summary>{safe(name)}</summary><div class="figures">{"".join(maps)}'
        "</div></details>"
        for index, (name, maps) in enumerate((name, maps) for name, maps in found if maps)
    ]
    if not blocks:
        return ""
    blurb = "One map a metric and run; open the others with a click. Maps of one metric share their colours."
    return f'<h2 id="layers">Layers over time</h2><p class="soft">{blurb}</p>{"".join(blocks)}'
