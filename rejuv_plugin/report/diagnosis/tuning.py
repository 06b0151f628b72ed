# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The page of a search for alpha and rho: the choice first, what it rests on second, every setting third."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...config.tuning import HALF
from ..page.document import document, fitting
from ..page.figure import csv_link
from ..page.table import table
from ..page.text import between, counted, safe, short
from .numbers import made
from .read_tuning import FILE, Trial, Tuning, read
from .tuning_pictures import pictures


def tuning_page(tuning: Mapping[str, Any]) -> str:
    """The page of what tuning.json holds; the same for the same input.

    Raises:
        InputError: named by the place in tuning.json that is not as it should be; or there is so much of it that no
            page could hold it.
    """
    found = read(tuning)
    return fitting(lambda _: _page(found), FILE, counted(len(found.trials), "setting"))


def _page(found: Tuning) -> str:
    drawn = _last(found.trials)
    signals = list(dict.fromkeys(name for trial in drawn for name in trial.signals))
    figures = "".join(pictures(found, drawn, signals))
    parts = [
        '<h2 id="choice">Choice</h2>',
        _lead(found),
        f'<h2 id="pictures">Settings compared</h2><div class="figures">{figures}</div>',
        _trace(found, signals),
        made(found.facts),
    ]
    menu = [("choice", "Choice"), ("pictures", "Settings compared"), ("settings", "Every setting")]
    return document(f"Tuning: alpha for {found.sft}", [*menu, ("made", "How it was measured")], "".join(parts))


def _lead(found: Tuning) -> str:
    choice, objective = found.choice, found.objective
    searched_rho = len({trial.rho for trial in found.trials}) > 1
    setting = f"alpha {choice.alpha:g}" + (f", rho {choice.rho:g}" if searched_rho else "")
    terms = []
    if choice.objective:
        terms.append((objective.name, f"{between(choice.objective.value, choice.objective.interval)} {objective.unit}"))
    if objective.meaning:
        terms.append(("which is", objective.meaning + (f" ({objective.source})" if objective.source else "")))
    last = _last(found.trials)
    if choice.probability_best is not None and len(last) > 1:
        rest = sum(not trial.stopped for trial in last)
        chance = f"{choice.probability_best:.0%} to be the best of the {counted(rest, 'setting')} that nothing stopped"
        terms.append(("how sure", chance))
    if choice.difference is not None and (choice.alpha, choice.difference) != (HALF, 0.0):
        terms.append(("against alpha 0.5", _difference(choice.difference, choice.difference_interval)))
    cached = sum(trial.cached for trial in found.trials)
    spent = sum(trial.seconds for trial in found.trials) if found.seconds is None else found.seconds
    kept = f", of which {cached} were kept from an earlier search" if cached else ""
    terms.append(("cost", f"{counted(round(spent), 'second')} for {counted(len(found.trials), 'measurement')}{kept}"))
    listed = "".join(f"<dt>{safe(term)}</dt><dd>{safe(text)}</dd>" for term, text in terms)
    says = f"<p>{safe(choice.says)}</p>" if choice.says else ""
    return f'<div class="lead"><p class="big">{safe(setting)}</p>{says}<dl>{listed}</dl></div>'


def _difference(value: float, interval: tuple[float, float] | None) -> str:
    said = f"{value:+.3g}"
    if interval is None:
        return said
    low, high = interval
    sure = "cannot be told from it" if low <= 0 <= high else "better than it" if low > 0 else "worse than it"
    return f"{said} ({low:+.3g} to {high:+.3g}): {sure}"


def _last(trials: Sequence[Trial]) -> list[Trial]:
    """Of each setting the measurement with most prompts, by alpha and rho."""
    found: dict[tuple[float, float], Trial] = {}
    for trial in trials:
        known = found.get((trial.alpha, trial.rho))
        if known is None or trial.prompts >= known.prompts:
            found[trial.alpha, trial.rho] = trial
    return [found[setting] for setting in sorted(found)]


def _trace(found: Tuning, signals: Sequence[str]) -> str:
    """Every measurement."""
    head = ["alpha", "rho", found.objective.name, *signals, "prompts", "group", "seconds", "cached", "stopped"]
    shown: list[list[str]] = []
    saved: list[list[object]] = [[*head[:2], "value", "low", "high", *head[3:]]]
    for trial in found.trials:
        estimates = [trial.objective, *(trial.signals.get(name) for name in signals)]
        cells = [between(e.value, e.interval) if e else "-" for e in estimates]
        counts = [str(trial.prompts), str(trial.group), short(trial.seconds), "yes" if trial.cached else "no"]
        shown.append([f"{trial.alpha:g}", f"{trial.rho:g}", *cells, *counts, trial.stopped or "-"])
        ends = (trial.objective.interval if trial.objective else None) or (None, None)
        raw = [e.value if e else None for e in estimates]
        saved.append(
            [trial.alpha, trial.rho, raw[0], *ends, *raw[1:], *counts[:2], trial.seconds, *counts[3:], trial.stopped]
        )
    kinds = ["number", "number", *["number"] * (1 + len(signals)), "number", "number", "number", "", "text"]
    return (
        '<h2 id="settings">Every setting</h2><p class="soft">By alpha, then rho. In brackets: '
        f"95 % intervals. {csv_link(saved, 'settings', 'All of them as CSV')}</p>"
        f"{table(head, shown, kinds, 'Every setting')}"
    )
