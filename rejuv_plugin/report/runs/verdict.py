# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The words and tables of a report: alarms, first and last values side by side, what the metrics mean."""

from collections.abc import Sequence
from statistics import fmean

from ...monitors.metric import QUANTILES
from ...monitors.rules import RULES
from ..page.plot import Points, style_of
from ..page.table import table
from ..page.text import counted, safe, short
from .meaning import Meanings, base_of, hidden
from .run import Raised, Run

_EDGE = 5
"""Values at either end of a run whose mean is compared."""

_OVERVIEW = (
    ("critic/score/mean", "reward in training"),
    ("actor/plasticity/entropy", "token entropy"),
    ("actor/plasticity/update_ratio", "update ratio"),
    ("actor/plasticity/update_ratio_rounded", "update ratio, of 16 bits"),
    ("actor/grad_norm", "gradient norm"),
    ("training/plasticity/zero_advantage_groups", "prompts without advantage"),
)


def cards(runs: Sequence[Run]) -> str:
    """What to know first: for each run its alarms, with cause and advice."""
    return f'<h2 id="verdict">Verdict</h2><div class="runs">{"".join(map(_card, range(len(runs)), runs))}</div>'


def _card(index: int, run: Run) -> str:
    on = [alarm for alarm in run.alarms if alarm.ended is None]
    over = [alarm for alarm in run.alarms if alarm.ended is not None]
    if on:
        state = f'<span class="state on">{counted(len(on), "alarm")} on</span>'
    elif over:
        state = f'<span class="state off">{counted(len(over), "alarm")}, ended</span>'
    elif not run.judged:
        state = '<span class="state off">not judged</span>'
    elif set(run.measured_for) <= set(run.judged):
        state = '<span class="state fine">no alarm</span>'
    else:
        state = '<span class="state off">no alarm yet</span>'
    waiting = [name for name in run.measured_for if name not in run.judged]
    unmeasured = [rule.name for rule in RULES if rule.name not in (*run.measured_for, *run.judged)]
    steps = (
        f"{run.measured} steps, {run.first_step} to {run.last_step}" if run.measured > 1 else f"step {run.first_step}"
    )
    said = f"{steps}; "
    without = [
        f"{why}: {', '.join(names)}"
        for why, names in (("not yet", waiting), ("without their metrics", unmeasured))
        if names
    ]
    said += f"{len(run.judged)} of {len(RULES)} rules could judge"
    said += f" ({'; '.join(without)})." if without else "."
    alarms = "".join(_alarm(alarm) for alarm in [*on, *over])
    return (
        f'<article class="{style_of(index)}"><h3>{safe(run.name)} {state}</h3><p class="soft">{safe(said)}</p>{alarms}'
        "</article>"
    )


def _alarm(alarm: Raised) -> str:
    rule = next((rule for rule in RULES if rule.name == alarm.name), None)
    when = f"raised at step {alarm.step}, the condition held since step {alarm.since}"
    when += "" if alarm.ended is None else f"; ended at step {alarm.ended}"
    rows = [("when", when), ("seen", alarm.seen)]
    rows += [("why", rule.why), ("try", rule.try_)] if rule else []
    terms = "".join(f"<dt>{term}</dt><dd>{safe(text)}</dd>" for term, text in rows)
    return f"<h4><code>{safe(alarm.name)}</code></h4><dl>{terms}</dl>"


def comparison(runs: Sequence[Run]) -> str:
    """A row a run: the mean of the first and of the last values of what matters most."""
    scores = sorted({name for run in runs for name in run.metrics if name.startswith("val-core/")})
    shown = [(name, name.removeprefix("val-core/")) for name in scores if "/mean@" in name] + list(_OVERVIEW)
    shown = [(name, label) for name, label in shown if any(name in run.metrics for run in runs)]
    if not shown:
        return ""
    rows = [[run.name, *(_change(run.metrics.get(name), name) for name, _ in shown)] for run in runs]
    edge = (
        f"mean of the first {_EDGE} → of the last {_EDGE} values, of fewer than {2 * _EDGE} of each half; "
        "validation: first → last, with their steps"
    )
    return (
        f'<h2>At a glance</h2><p class="soft">{safe(edge)}</p>'
        f"{table(['run', *(label for _, label in shown)], rows, ['name'] + ['number'] * len(shown), 'At a glance')}"
    )


def _change(points: Points | None, name: str) -> str:
    if not points:
        return short(None)
    values = [value for _, value in points]
    if len(values) == 1:
        return f"{short(values[0])} ({points[0][0]})"
    if name.startswith("val-core/"):
        return " → ".join(f"{short(value)} ({step})" for step, value in (points[0], points[-1]))
    edge = max(1, min(_EDGE, len(values) // 2))
    return f"{short(fmean(values[:edge]))} → {short(fmean(values[-edge:]))}"


def last_values(runs: Sequence[Run], meanings: Meanings) -> str:
    """Every metric's last value, with what is known about it."""
    names = sorted({base_of(name) for run in runs for name in run.metrics if not hidden(name)})
    rows = []
    for name in names:
        known = meanings.of(name)
        rows.append([name, *(_last(run, name) for run in runs), known.unit, known.meaning, known.healthy, known.source])
    head = ["metric", *(run.name for run in runs), "unit", "meaning", "healthy", "source"]
    kinds = ["name", *["number"] * len(runs), "", "text", "text", "text"]
    blurb = "Of metrics by layer: the median over layers (5 % to 95 %)."
    return f'<h2 id="values">Last values</h2><p class="soft">{blurb}</p>{table(head, rows, kinds, "Last values")}'


def _last(run: Run, name: str) -> str:
    def last(metric: str) -> str:
        return short(run.metrics[metric][-1][1] if metric in run.metrics else None)

    if f"{name}_layers/q50" not in run.metrics:
        return last(name)
    low, middle, high = (last(f"{name}_layers/{quantile}") for quantile in QUANTILES)
    own = f"{last(name)}; " if name in run.metrics else ""
    return f"{own}{middle} ({low} to {high})"


def glossary(meanings: Meanings) -> str:
    """The alarms and the catalogue in words."""
    alarms = [[rule.name, rule.condition, rule.try_, rule.source] for rule in RULES]
    parts = [
        '<h2 id="glossary">Glossary</h2><h3>Alarms</h3>',
        "<p>No alarm is no proof of health: rules know what has been published, and a few levels of ours.</p>",
        table(["alarm", "raised when", "try", "source"], alarms, ["name", "text", "text", "text"], "Alarms"),
    ]
    if meanings.rows:
        metrics = [[name, m.meaning, m.unit, m.healthy, m.reduction, m.source] for name, m in meanings.rows.items()]
        head = ["metric", "meaning", "unit and range", "healthy", "reduction", "source"]
        parts += [
            "<h3>Metrics of the monitors</h3>",
            table(head, metrics, ["name", "text", "", "text", "text", "text"], "Metrics of the monitors"),
        ]
    return "".join(parts)
