# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Verdicts in words and colours, and evidence as a small picture."""

from ..page.table import Html
from ..page.text import between, safe, short
from .read import Reason

LEVELS = {
    "ready": ("ready", "fine"),
    "at_risk": ("at risk", "warn"),
    "over_trained": ("over-trained", "on"),
    "too_weak": ("too weak to learn from", "weak"),
    "unknown": ("not known", "off"),
}
"""By level: what it is called, and its class."""


def badge(level: str | None) -> Html:
    """A level beside a name; the base has none."""
    name, style = LEVELS.get(level, (level, "off")) if level is not None else ("the base", "off")
    return Html(f'<span class="state {style}">{safe(name)}</span>')


_WIDTH, _HEIGHT, _EDGE = 150, 22, 6


def gauge(reason: Reason) -> Html:
    """The value with its interval, and the side of the threshold that is bad."""
    reached = [reason.value, reason.threshold, *(reason.interval or ())]
    low, high = min(0.0, *reached), max(reached)
    room = 0.12 * (high - low) or 1.0
    high, low = high + room, low - room if low < 0 else low

    def x(value: float) -> float:
        return round(_EDGE + (_WIDTH - 2 * _EDGE) * (value - low) / (high - low), 1)

    level, middle = x(reason.threshold), _HEIGHT / 2
    left, right = (level, _WIDTH - _EDGE) if reason.bad == "above" else (_EDGE, level)
    style = "c1" if reason.met else "c2"
    interval = ""
    if reason.interval:
        ends = [x(end) for end in reason.interval]
        interval = f'<line class="key {style}" x1="{ends[0]}" x2="{ends[1]}" y1="{middle}" y2="{middle}"/>'
    said = f"{reason.signal}: {between(reason.value, reason.interval)}, bad {reason.bad} {short(reason.threshold)}"
    return Html(
        f'<svg class="gauge" role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}"><title>{safe(said)}</title>'
        f'<rect class="side" x="{left:.1f}" y="3" width="{max(0.0, right - left):.1f}" height="{_HEIGHT - 6}"/>'
        f'<line class="grid" x1="{_EDGE}" x2="{_WIDTH - _EDGE}" y1="{middle}" y2="{middle}"/>'
        f'<line class="level" x1="{level}" x2="{level}" y1="1" y2="{_HEIGHT - 1}"/>{interval}'
        f'<circle class="dot {style}" cx="{x(reason.value)}" cy="{middle}" r="4"/></svg>'
    )
