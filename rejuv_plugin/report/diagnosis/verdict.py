# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What to know first: which checkpoints RL can start from, and why."""

from collections.abc import Sequence

from ..page.table import Html, table
from ..page.text import between, counted, safe, short
from .read import Checkpoint, Diagnosis, Reason
from .words import LEVELS, badge, gauge

# The first that was measured of each.
_GLANCE = (
    ("token entropy, nats", ("entropy_sampled", "entropy")),
    ("top-1 mass", ("top1_mass_sampled", "top1_mass")),
    ("pass@1", ("pass_at_1",)),
    ("pass@k", ("pass_at_k",)),
    ("drift from base", ("drift",)),
)

_OPEN = 3
"""Cases that are shown unfolded, if there are no more."""


def lead(found: Diagnosis) -> str:
    """The answer in one sentence, and one line for each level."""
    judged = [each for each in found.checkpoints if each.verdict]
    by_level: dict[str, list[str]] = {level: [] for level in LEVELS}
    for each in judged:
        by_level.setdefault(_level(each), []).append(each.name)
    ready = by_level["ready"]
    if not judged:
        said = "Measured, but not judged"
    elif len(judged) == 1:
        said = f"{judged[0].name}: {LEVELS.get(_level(judged[0]), (_level(judged[0]), ''))[0]}"
    elif not ready:
        said = f"None of {len(judged)} checkpoints is ready for RL"
    else:
        said = f"{len(ready)} of {counted(len(judged), 'checkpoint')} {'is' if len(ready) == 1 else 'are'} ready for RL"
    parts = [f'<p class="big">{safe(said)}</p>']
    if len(judged) == 1 and judged[0].verdict:
        parts.append(f"<p>{safe(_sentence(judged[0].verdict.headline))}</p>{_advice(judged[0].verdict.advice)}")
    elif judged:
        lines = [(badge(level), names) for level, names in by_level.items() if names]
        terms = "".join(f"<dt>{state}</dt><dd>{safe(', '.join(names))}</dd>" for state, names in lines)
        parts.append(f"<dl>{terms}</dl>")
        if ready:
            parts.append(f"<p>The longest trained of those that are ready: <b>{safe(ready[-1])}</b>.</p>")
    return f'<div class="lead">{"".join(parts)}</div>'


def glance(found: Diagnosis) -> str:
    """A line a checkpoint."""
    shown = [
        (label, names)
        for label, names in _GLANCE
        if any(name in each.numbers for each in found.checkpoints for name in names)
    ]
    rows = []
    for each in found.checkpoints:
        cells = [next((_value(each, name) for name in names if name in each.numbers), "-") for _, names in shown]
        rows.append([each.name, badge(each.verdict.level if each.verdict else None), *cells])
    head = ["checkpoint", "verdict", *(label for label, _ in shown)]
    kinds = ["name", "", *["number"] * len(shown)]
    blurb = "In brackets: 95 % intervals. In the order given, the base first."
    return f'<p class="soft">{blurb}</p>{table(head, rows, kinds, "Verdict and main numbers of each checkpoint")}'


def cases(found: Diagnosis) -> str:
    """The evidence on each checkpoint."""
    judged = [each for each in found.checkpoints if each.verdict]
    if not judged:
        return ""
    blurb = "Red: the bad side of a threshold. A dot with its interval: what was measured."
    return (
        f'<h2 id="evidence">Evidence</h2><p class="soft">{blurb}</p>'
        f"{''.join(_case(each, len(judged) <= _OPEN) for each in judged)}"
    )


def _case(each: Checkpoint, opened: bool) -> str:
    verdict = each.verdict
    assert verdict is not None
    rows = [
        [r.signal, gauge(r), between(r.value, r.interval), _side(r), _finding(r), r.source] for r in verdict.reasons
    ]
    head = ["signal", "picture", "value", "bad side", "finding", "source of the threshold"]
    kinds = ["name", "", "number", "", "text", "text"]
    shown = table(head, rows, kinds, f"Evidence on {each.name}") if rows else "<p>No rule had its signals.</p>"
    where = f'<p class="soft">{safe(each.path)}</p>' if each.path else ""
    return (
        f'<details class="case"{" open" if opened else ""}><summary><h3>{safe(each.name)}</h3>{badge(verdict.level)}'
        f"<p>{safe(_sentence(verdict.headline))}</p></summary>{shown}{_advice(verdict.advice)}{where}</details>"
    )


def _advice(advice: Sequence[str]) -> str:
    listed = "".join(f"<li>{safe(_sentence(each))}</li>" for each in advice)
    return f"<p>What to do:</p><ul>{listed}</ul>" if listed else ""


def _side(reason: Reason) -> str:
    return f"{reason.bad} {short(reason.threshold)}"


def _finding(reason: Reason) -> str:
    if not reason.met:
        return "on the good side" + ("" if reason.clear else ", but the interval crosses the threshold")
    return reason.says + ("" if reason.clear else " (not sure: the interval crosses the threshold)")


def _value(each: Checkpoint, name: str) -> Html:
    estimate = each.numbers[name]
    return Html(safe(between(estimate.value, estimate.interval)))


def _level(each: Checkpoint) -> str:
    return each.verdict.level if each.verdict else ""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) or not text else ".")
