# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Which metrics go into which figure, and in what order a reader meets them."""

from collections.abc import Sequence

from ...monitors.rules import RULES
from ..page.axes import steps
from ..page.document import Detail
from ..page.figure import Key, Words, figure
from ..page.plot import Line, Panel, Points, plot, rows, style_of, thinned
from ..page.sections import Section, sorted_into
from ..page.text import counted
from .layer_map import layer_map
from .meaning import OURS, Meanings, base_of, hidden
from .run import Run

# A run has one of the two ratios: of updates in 32 bits or in 16.
_RATIOS, _NORM = ("actor/plasticity/update_ratio", "actor/plasticity/update_ratio_rounded"), "actor/grad_norm"
_PASS, _FLOOR = "training/plasticity/pass_rate", "training/plasticity/pass_rate_floor"

# Alarms whose level is a value of the metric itself, and can be drawn as a line.
_LEVELS = {
    rule.reads[0]: rule.level
    for rule in RULES
    if rule.name in ("low_entropy_at_start", "entropy_collapse", "zero_advantage")
}

_BANDS = 4
"""Runs in one picture whose bands over layers can still be told apart."""


SECTIONS = (
    Section(
        "Reward and validation",
        "Whether RL improves the policy. Read level and gain together: a lower start makes a larger gain.",
        ("critic/score", "critic/rewards", "val-core/"),
    ),
    Section(
        "Updates and gradients",
        "A gradient norm alone says nothing good: it was higher on policies that stalled. See the update ratio too.",
        (_NORM, "actor/plasticity/grad", "actor/plasticity/update", "actor/plasticity/changed"),
    ),
    Section(
        "Certainty of the policy",
        "On the batch that it is updated with. A policy that is certain of everything explores nothing.",
        ("actor/plasticity/entropy", "actor/plasticity/top1"),
    ),
    Section(
        "Groups of answers",
        "Prompts whose answers all earned the same give no advantage, hence no gradient.",
        ("training/plasticity/pass_rate", "training/plasticity/"),
    ),
    Section("Drift of the weights", "How far the weights are from where they came.", ("actor/plasticity/drift",)),
    Section(
        "Probe set",
        "The same prompts and responses at every look, so that runs and times compare.",
        ("actor/plasticity/probe/",),
    ),
    Section("Other monitors", "", OURS),
    Section("The job", "verl's own metrics that the monitors keep.", ("",)),
)


def figures_of(section: Section, names: Sequence[str], runs: Sequence[Run], meanings: Meanings, most: int) -> list[str]:
    """HTML figures of one section over the metrics ``names``, with at most ``most`` points a curve."""
    pair = [*(name for name in _RATIOS if name in names), _NORM]
    groups = [("Update ratio and gradient norm, together", pair)] if len(pair) > 1 and _NORM in names else []
    together = {*(groups[0][1] if groups else ()), *((_FLOOR,) if _PASS in names else ())}
    groups += [(_title(name), [name]) for name in names if name not in together]
    found = []
    for index, (title, group) in enumerate(groups):
        panels = [_panel(name, runs, meanings, most) for name in group]
        identity = f"{section.prefixes[0]}{index}".replace("/", "-")
        found.append(_curves(title, panels, runs, _reached(group, runs), _note(group, runs, meanings, most), identity))
    return found


def _reached(names: Sequence[str], runs: Sequence[Run]) -> list[int]:
    """First and last steps that some of the metrics were measured at, however few points are drawn."""
    measured = [points for run in runs for name, points in run.metrics.items() if base_of(name) in names]
    return [int(points[end][0]) for points in measured for end in (0, -1)]


def _curves(
    title: str, panels: Sequence[Panel], runs: Sequence[Run], reached: Sequence[int], note: str, identity: str
) -> str:
    keys = [Key(style_of(index), run.name) for index, run in enumerate(runs)]
    # Alarms on a metric that is measured seldom may have been raised by another one, before or after.
    bottom = steps([*reached, *(int(step) for panel in panels for _, step, _ in panel.marks)], "RL step")
    shown = sorted({line.key for panel in panels for line in panel.lines})
    legend = [keys[index] for index in shown] if len(runs) > 1 else []
    said = f"Curves over steps {bottom.low} to {bottom.high} of {counted(len(shown), 'run')}. {note}"
    table = rows(panels, bottom, keys, ("metric", "run", "step", "value", "q05", "q95"))
    return figure(Words(title, note, said, title), plot(panels, bottom, keys), legend, table, identity)


def grouped(runs: Sequence[Run]) -> list[tuple[Section, list[str]]]:
    """Sections that have something to show, with their metrics; all quantiles of a layered metric are one. Of verl's
    ``val-aux/``, dozens of statistics of each validation, the last values must do."""
    names = {base_of(name) for run in runs for name in run.metrics if not hidden(name)}
    names = {name for name in names if not name.startswith("val-aux/")}
    return sorted_into(sorted(names), SECTIONS)


def maps_of(name: str, runs: Sequence[Run], meanings: Meanings, detail: Detail, identity: str) -> list[str]:
    """A heat map for each run that has the layered metric ``name``, all with the same colours."""
    has = [run for run in runs if run.layers.get(name)]
    values = [v for run in has for _, row in run.layers[name] for v in row if v is not None]
    if not values:
        return []
    limits, unit = (min(values), max(values)), meanings.of(name).axis
    return [
        layer_map(_title(name), unit, run.layers[name], limits, detail, f"{identity}r{index}", run.name)
        for index, run in enumerate(has)
    ]


def _title(name: str) -> str:
    for prefix in OURS:
        name = name.removeprefix(prefix)
    return name


def _panel(name: str, runs: Sequence[Run], meanings: Meanings, most: int) -> Panel:
    banded = _layered(name, runs) <= _BANDS
    lines: list[Line] = []
    for index, run in enumerate(runs):

        def points(metric: str, run: Run = run) -> Points:
            return thinned(run.metrics.get(metric, []), most)

        if middle := points(f"{name}_layers/q50"):
            low, high = points(f"{name}_layers/q05"), points(f"{name}_layers/q95")
            lines.append(Line(index, middle, low if banded else [], high if banded else []))
        if own := points(name):
            # Beside quantiles over layers it is the whole model's.
            lines.append(Line(index, own, form="reference" if middle else "line"))
        if name == _PASS and (floor := points(_FLOOR)):
            lines.append(Line(index, floor, form="reference"))
    marks = [
        (index, alarm.step, f"{run.name}: {alarm.name} raised at step {alarm.step}")
        for index, run in enumerate(runs)
        for alarm in run.alarms
        if any(rule.name == alarm.name and name in map(base_of, rule.reads) for rule in RULES)
    ]
    levels = [(_LEVELS[name], "alarm")] if name in _LEVELS else []
    return Panel(_title(name), meanings.of(name).axis, lines, levels, marks)


def _layered(name: str, runs: Sequence[Run]) -> int:
    """Number of runs that have quantiles over layers of it."""
    return sum(f"{name}_layers/q50" in run.metrics for run in runs)


def _note(names: Sequence[str], runs: Sequence[Run], meanings: Meanings, most: int) -> str:
    said = [meanings.of(name).meaning for name in names]
    if layered := max(_layered(name, runs) for name in names):
        said.append("line: median over layers" + (", band: 5 % to 95 %" if layered <= _BANDS else ""))
        if any(name in run.metrics and _layered(name, [run]) for name in names for run in runs):
            said.append("dashed: the whole model")
    if _PASS in names and any(_FLOOR in run.metrics for run in runs):
        said.append("dashed: p*(g), below which most groups give no signal")
    longest = max((len(points) for run in runs for name, points in run.metrics.items() if base_of(name) in names))
    if longest > most:
        said.append(f"each point: mean over up to {-(-longest // most)} steps")
    return "; ".join(part for part in said if part)
