# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The page of a diagnosis: the verdict first, pictures second, numbers third."""

from collections.abc import Mapping
from typing import Any

from ..page.document import document, fitting
from ..page.text import counted, safe
from .numbers import catalogue, made, values
from .pictures import by_layer, by_position, curve, ladder, maps
from .read import FILE, Diagnosis, read
from .sections import grouped, groups
from .verdict import cases, glance, lead


def page(metrics: Mapping[str, Any]) -> str:
    """The page of what metrics.json holds; the same for the same input.

    Raises:
        InputError: named by the place in metrics.json that is not as it should be; or there is so much of it that no
            page could hold it.
    """
    found = read(metrics)
    return fitting(lambda detail: _page(found, detail.points), FILE, counted(len(found.checkpoints), "checkpoint"))


def _page(found: Diagnosis, most: int) -> str:
    sections = grouped(found)
    parts = ['<h2 id="verdict">Verdict</h2>', lead(found), glance(found), cases(found)]
    for index, (section, names) in enumerate(sections):
        blurb = f'<p class="soft">{safe(section.blurb)}</p>' if section.blurb else ""
        parts.append(f'<h2 id="s{index}">{safe(section.title)}</h2>{blurb}{_pictures(names, found, most, f"s{index}")}')
    last = [values(found), catalogue(found), made(found.facts)]
    menu = [("verdict", "Verdict")]
    menu += [("evidence", "Evidence")] if found.judged else []
    menu += [(f"s{index}", section.title) for index, (section, _) in enumerate(sections)]
    menu += [entry for entry, part in zip(_LAST, last, strict=True) if part]
    return document(f"Diagnosis: {_ladder(found)}", menu, "".join([*parts, *last]))


_LAST = (("numbers", "Numbers"), ("meaning", "Meanings"), ("made", "How it was measured"))


def _ladder(found: Diagnosis) -> str:
    trained = [each.name for each in found.checkpoints if each.role != "base"]
    names = ", ".join(trained) if len(trained) < 4 else f"{len(trained)} checkpoints"
    return f"{names or 'the base alone'}, from {found.base}"


def _pictures(names: list[str], found: Diagnosis, most: int, identity: str) -> str:
    """The figures of one section: along the ladder, by position, along curves, by layer; maps below."""
    along = [ladder(group, found, f"{identity}g{index}") for index, group in enumerate(groups(names, found))]
    signals = [found.signals[name] for name in names]
    for index, signal in enumerate(signals):
        along.append(by_position(signal, found, most, f"{identity}p{index}"))
        along.append(curve(signal, found, most, f"{identity}x{index}"))
    layered = [by_layer(signal, found, f"{identity}l{index}") for index, signal in enumerate(signals)]
    html = f'<div class="figures">{"".join([*along, *layered])}</div>'
    for index, signal in enumerate(signals):
        if drawn := maps(signal, found, f"{identity}m{index}"):
            says = f"{signal.name}, by layer and module"
            html += (
                f"<details{' open' if index == 0 else ''}><summary>{safe(says)}: {counted(len(drawn), 'map')} with the "
                f'same colours</summary><div class="figures small">{"".join(drawn)}</div></details>'
            )
    return html
