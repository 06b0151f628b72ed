# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The report of one run or several: one HTML file that needs nothing else, the verdict first."""

from collections.abc import Sequence
from pathlib import Path

from ...checkpoint.small_file import write_text
from ...monitors.metric import Metric
from ..page.document import Detail, document, fitting
from ..page.text import counted, safe
from .meaning import Meanings
from .run import Run
from .sections import figures_of, grouped, maps_of
from .verdict import cards, comparison, glossary, last_values


def write(runs: Sequence[Run], catalogue: Sequence[Metric], path: Path) -> None:
    """Write the page, all or nothing; a file that is there is replaced (`page.document.check_output` first)."""
    write_text(path, page(runs, catalogue))


def page(runs: Sequence[Run], catalogue: Sequence[Metric]) -> str:
    """The page; the same for the same input. Of very many runs or metrics less is drawn, to keep the limit.

    Args:
        runs: at least one, in the order of their colours.
        catalogue: the monitors' metrics, for tables and axes; others are shown without words.

    Raises:
        InputError: so many runs that no page could hold them.
    """
    meanings = Meanings(catalogue)
    return fitting(lambda detail: _page(runs, meanings, detail), "DIR", counted(len(runs), "run"))


def _page(runs: Sequence[Run], meanings: Meanings, detail: Detail) -> str:
    names = [run.name for run in runs]
    title = f"RL and plasticity: {', '.join(names)}" if len(names) < 4 else f"RL and plasticity of {len(names)} runs"
    parts = [cards(runs), comparison(runs)]
    sections = grouped(runs)
    for index, (section, metrics) in enumerate(sections):
        figures = "".join(figures_of(section, metrics, runs, meanings, detail.points))
        blurb = f'<p class="soft">{safe(section.blurb)}</p>' if section.blurb else ""
        parts.append(f'<h2 id="s{index}">{safe(section.title)}</h2>{blurb}<div class="figures">{figures}</div>')
    maps = _maps(runs, meanings, detail)
    parts += [maps, last_values(runs, meanings), glossary(meanings)]
    links = [("verdict", "Verdict"), *((f"s{index}", section.title) for index, (section, _) in enumerate(sections))]
    links += [("layers", "Layers")] if maps else []
    links += [("values", "Last values"), ("glossary", "Glossary")]
    return document(title, links, "".join(parts))


def _maps(runs: Sequence[Run], meanings: Meanings, detail: Detail) -> str:
    names = sorted({name for run in runs for name in run.layers})
    found = [(name, maps_of(name, runs, meanings, detail, f"m{i}")) for i, name in enumerate(names)]
    blocks = [
        f'<details{" open" if index == 0 else ""}><summary>{safe(name)}</summary><div class="figures">{"".join(maps)}'
        "</div></details>"
        for index, (name, maps) in enumerate((name, maps) for name, maps in found if maps)
    ]
    if not blocks:
        return ""
    blurb = "One map a metric and run; open the others with a click. Maps of one metric share their colours."
    return f'<h2 id="layers">Layers over time</h2><p class="soft">{blurb}</p>{"".join(blocks)}'
