# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The figures of a search: objective, signals and cost against alpha, or rho, with the choice marked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..page.axes import numbers
from ..page.figure import Key, Words, figure
from ..page.plot import Panel, plot, rows, style_of
from .read import Estimate
from .read_tuning import Choice, Trial, Tuning
from .rungs import noted, rungs


@dataclass(frozen=True)
class Quantity:
    """Something that each trial has, or not."""

    name: str
    unit: str
    of: Callable[[Trial], Estimate | None]


@dataclass(frozen=True)
class _Setting:
    """One of the two numbers that are searched."""

    name: str
    says: str
    of: Callable[[Trial | Choice], float]


_ALPHA = _Setting("alpha", "0: the base, 1: the SFT checkpoint", lambda trial: trial.alpha)
_RHO = _Setting("rho", "share of neurons that are reset", lambda trial: trial.rho)


def pictures(found: Tuning, trials: Sequence[Trial], signals: Sequence[str]) -> list[str]:
    """HTML figures.

    Args:
        found: with the objective and the choice.
        trials: one for each setting.
        signals: names of what was measured beside the objective.
    """
    objective = found.objective
    cost = [
        Quantity("time", "seconds", lambda trial: Estimate(trial.seconds, None)),
        Quantity("answers", "prompts times group", lambda trial: Estimate(float(trial.prompts * trial.group), None)),
    ]
    goal = Quantity(objective.name, objective.axis, lambda trial: trial.objective)
    drawn = [_picture("objective", objective.meaning.partition(". ")[0], [goal], found.choice, trials, "o")]
    for index, name in enumerate(signals):
        drawn.append(_picture(name, "", [_signal(name)], found.choice, trials, f"n{index}"))
    return [*drawn, _picture("Cost of each setting", "", cost, found.choice, trials, "k")]


def _signal(name: str) -> Quantity:
    return Quantity(name, "", lambda trial: trial.signals.get(name))


def _picture(
    title: str, note: str, quantities: Sequence[Quantity], choice: Choice, trials: Sequence[Trial], identity: str
) -> str:
    """Panels over alpha with a line for each rho; over rho, if that alone was searched."""
    x, other = _ALPHA, _RHO
    if len({x.of(trial) for trial in trials}) == 1 < len({other.of(trial) for trial in trials}):
        x, other = other, x
    families = sorted({other.of(trial) for trial in trials})
    chosen = x.of(choice), f"chosen: {x.of(choice):g}"
    panels = []
    for quantity in quantities:
        lines = [
            rungs(index, [(x.of(trial), quantity.of(trial)) for trial in trials if other.of(trial) == value])
            for index, value in enumerate(families)
        ]
        if lines := [line for line in lines if line.points]:
            include = () if any(line.low for line in lines) else (0.0,)
            panels.append(Panel(quantity.name, quantity.unit, lines, choices=[chosen], include=include))
    if not panels:
        return ""
    keys = [Key(style_of(index), f"{other.name} {value:g}") for index, value in enumerate(families)]
    bottom = numbers([x.of(trial) for trial in trials], f"{x.name} ({x.says})")
    note = noted(note, [line for panel in panels for line in panel.lines])
    words = Words(title, note, f"{title} over {x.name}; {chosen[1]}. {note}", title)
    table = rows(panels, bottom, keys, ("figure", other.name, x.name, "value", "low", "high"))
    return figure(words, plot(panels, bottom, keys), keys, table, identity)
