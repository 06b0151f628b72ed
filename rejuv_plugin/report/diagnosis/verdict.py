# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What to know first: which checkpoints RL can start from, and why."""

from collections.abc import Sequence

from ..page.table import table
from ..page.text import between, safe, short
from .read import Checkpoint, Diagnosis, Reason, Verdict
from .words import LEVELS, badge, called, gauge

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
    judged = found.judged
    by_level: dict[str, list[str]] = {level: [] for level in LEVELS}
    for each, verdict in judged:
        by_level.setdefault(verdict.level, []).append(each.name)
    ready = by_level["ready"]
    if not judged:
        return _lead("Measured, but not judged", "")
    if len(judged) == 1:
        ((each, verdict),) = judged
        return _lead(
            f"{each.name}: {called(verdict.level)}",
            f"<p>{safe(_sentence(verdict.headline))}</p>{_advice(verdict.advice)}",
        )
    lines = [(badge(level), names) for level, names in by_level.items() if names]
    terms = "".join(f"<dt>{state}</dt><dd>{safe(', '.join(names))}</dd>" for state, names in lines)
    if not ready:
        return _lead(f"None of {len(judged)} checkpoints is ready for RL", f"<dl>{terms}</dl>")
    return _lead(
        f"{len(ready)} of {len(judged)} checkpoints {'is' if len(ready) == 1 else 'are'} ready for RL",
        f"<dl>{terms}</dl><p>The last of them that is ready, in the order given: <b>{safe(ready[-1])}</b>.</p>",
    )


def _lead(said: str, more: str) -> str:
    return f'<div class="lead"><p class="big">{safe(said)}</p>{more}</div>'


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
    judged = found.judged
    if not judged:
        return ""
    blurb = "Red: the bad side of a threshold. A dot with its interval: what was measured."
    shown = "".join(_case(each, verdict, len(judged) <= _OPEN) for each, verdict in judged)
    return f'<h2 id="evidence">Evidence</h2><p class="soft">{blurb}</p>{shown}'


def _case(each: Checkpoint, verdict: Verdict, opened: bool) -> str:
    rows = [
        [r.signal, gauge(r), between(r.value, r.interval), _side(r), _finding(r), r.source] for r in verdict.reasons
    ]
    head = ["signal", "picture", "value", "bad side", "finding", "source of the threshold"]
    kinds = ["name", "", "number", "tight", "text", "text"]
    shown = table(head, rows, kinds, f"Evidence on {each.name}") if rows else "<p>No rule had its signals.</p>"
    shown += "".join(
        f"<p>Not judged: <code>{safe(signal)}</code>. {safe(_sentence(why))}</p>" for signal, why in verdict.not_judged
    )
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
        return "on the good side" + ("" if reason.clear else f", but {_doubt(reason)}")
    return reason.says + ("" if reason.clear else f" (not sure: {_doubt(reason)})")


def _doubt(reason: Reason) -> str:
    """Why it is not clear."""
    if reason.interval is None:
        return "no interval: one example does not tell how sure that is"
    low, high = reason.interval
    crosses = low <= reason.threshold <= high
    return "the interval crosses the threshold" if crosses else "too few examples to be sure"


def _value(each: Checkpoint, name: str) -> str:
    estimate = each.numbers[name]
    return between(estimate.value, estimate.interval)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) or not text else ".")
