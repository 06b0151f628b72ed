# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The page of a search for alpha and rho: the choice first, what it rests on second, every setting third."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..page.axes import numbers
from ..page.document import document, fitting
from ..page.figure import Key, Words, csv_link, figure
from ..page.plot import Line, Panel, plot, rows, style_of
from ..page.table import table
from ..page.text import between, counted, safe, short
from .numbers import made
from .read import Estimate
from .read_tuning import FILE, Trial, Tuning, read


def tuning_page(tuning: Mapping[str, Any]) -> str:
    """The page of what tuning.json holds; the same for the same input.

    Raises:
        InputError: named by the place in tuning.json that is not as it should be; or there is so much of it that no
            page could hold it.
    """
    found = read(tuning)
    return fitting(lambda _: _page(found), FILE, counted(len(found.trials), "setting"))


def _page(found: Tuning) -> str:
    objective, drawn = found.objective, _last(found.trials)
    signals = list(dict.fromkeys(name for trial in drawn for name in trial.signals))
    pictures = [_picture(found, drawn, [(objective.name, objective.axis, lambda t: t.objective)], "objective", "o")]
    for index, name in enumerate(signals):
        pictures.append(
            _picture(found, drawn, [(name, "", lambda t, name=name: t.signals.get(name))], name, f"n{index}")
        )
    cost = [
        ("time", "seconds", lambda trial: Estimate(trial.seconds, None)),
        ("answers", "prompts times group", lambda trial: Estimate(float(trial.prompts * trial.group), None)),
    ]
    pictures.append(_picture(found, drawn, cost, "Cost of each setting", "k"))
    parts = [
        '<h2 id="choice">Choice</h2>',
        _lead(found),
        f'<h2 id="pictures">Settings compared</h2><div class="figures">{"".join(pictures)}</div>',
        _trace(found, signals),
        made(found.facts),
    ]
    menu = [("choice", "Choice"), ("pictures", "Settings compared"), ("settings", "Every setting")]
    return document(f"Tuning: alpha for {found.sft}", [*menu, ("made", "How it was measured")], "".join(parts))


def _lead(found: Tuning) -> str:
    choice, objective = found.choice, found.objective
    setting = f"alpha {choice.alpha:g}" + (f", rho {choice.rho:g}" if _many(found.trials, lambda t: t.rho) else "")
    terms = []
    if choice.objective:
        terms.append((objective.name, f"{between(choice.objective.value, choice.objective.interval)} {objective.unit}"))
    if objective.meaning:
        terms.append(("which is", objective.meaning + (f" ({objective.source})" if objective.source else "")))
    if choice.probability_best is not None:
        chance = f"{choice.probability_best:.0%} to be the best of {counted(len(_last(found.trials)), 'setting')}"
        terms.append(("chance", chance))
    if choice.difference is not None:
        terms.append(("against alpha 0.5", _difference(choice.difference, choice.difference_interval)))
    cached = sum(trial.cached for trial in found.trials)
    spent = sum(trial.seconds for trial in found.trials) if found.seconds is None else found.seconds
    kept = f", {counted(cached, 'setting')} of them kept from an earlier search" if cached else ""
    terms.append(("cost", f"{spent:,.0f} seconds for {counted(len(found.trials), 'measurement')}{kept}"))
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


def _many(trials: Sequence[Trial], of: Callable[[Trial], float]) -> bool:
    return len({of(trial) for trial in trials}) > 1


def _picture(
    found: Tuning,
    trials: Sequence[Trial],
    shown: Sequence[tuple[str, str, Callable[[Trial], Estimate | None]]],
    title: str,
    identity: str,
) -> str:
    """Panels over alpha with a line for each rho; over rho, if that alone was searched."""
    x_name, x, other_name, other = "alpha", _alpha, "rho", _rho
    if not _many(trials, _alpha) and _many(trials, _rho):
        x_name, x, other_name, other = "rho", _rho, "alpha", _alpha
    others = sorted({other(trial) for trial in trials})
    keys = [Key(style_of(index), f"{other_name} {value:g}") for index, value in enumerate(others)]
    chosen = (x(found.choice), f"chosen: {x(found.choice):g}")
    panels = []
    for name, unit, of in shown:
        lines = []
        for index, value in enumerate(others):
            has = [(x(t), estimate) for t in trials if other(t) == value and (estimate := of(t)) is not None]
            bounds = [(at, estimate.interval) for at, estimate in has if estimate.interval]
            if has:
                points = [(at, estimate.value) for at, estimate in has]
                low, high = [(at, ends[0]) for at, ends in bounds], [(at, ends[1]) for at, ends in bounds]
                lines.append(Line(index, points, low, high, "rungs"))
        if lines:
            panels.append(
                Panel(name, unit, lines, choices=[chosen], include=() if any(line.low for line in lines) else (0,))
            )
    if not panels:
        return ""
    share = "0: the base, 1: the SFT checkpoint" if x_name == "alpha" else "share of neurons that are reset"
    bottom = numbers([x(trial) for trial in trials], f"{x_name} ({share})")
    notes = [found.objective.meaning] if title == "objective" else []
    notes += ["bars: 95 % intervals"] if any(line.low for panel in panels for line in panel.lines) else []
    note = "; ".join(filter(None, notes))
    said = f"{title} over {x_name}; {chosen[1]}. {note}"
    table_rows = rows(panels, bottom, keys, ("figure", other_name, x_name, "value", "low", "high"))
    return figure(Words(title, note, said, title), plot(panels, bottom, keys), keys, table_rows, identity)


def _alpha(of: Any) -> float:
    return of.alpha


def _rho(of: Any) -> float:
    return of.rho


def _trace(found: Tuning, signals: Sequence[str]) -> str:
    """Every measurement, in the order in which they were made."""
    head = ["alpha", "rho", found.objective.name, *signals, "prompts", "group", "seconds", "cached", "stopped"]
    shown, saved = [], [[*head[:2], "value", "low", "high", *head[3:]]]
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
        '<h2 id="settings">Every setting</h2><p class="soft">In the order in which they were measured. In brackets: '
        f"95 % intervals. {csv_link(saved, 'settings', 'All of them as CSV')}</p>"
        f"{table(head, shown, kinds, 'Every setting')}"
    )
