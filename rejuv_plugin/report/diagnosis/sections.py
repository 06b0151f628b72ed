# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Which signals are drawn together, and in what order a reader meets them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..page.sections import Section, sorted_into
from .read import Diagnosis

SECTIONS = (
    Section(
        "Certainty",
        "How sure the model is of its next token. One that is certain of everything explores nothing.",
        ("entropy", "top1", "nll", "calibration"),
    ),
    Section(
        "Answers",
        "What RL would see in its first step: prompts whose answers all pass or all fail teach nothing.",
        ("pass_", "gradient_share", "finished"),
    ),
    Section("Drift of the weights", "How far, where and in which direction SFT moved them.", ("drift", "update_")),
    Section(
        "Sharpness of the loss", "How soon the loss rises around the weights.", ("sharpness", "critical_", "hessian")
    ),
    Section(
        "Neurons and ranks",
        "What each layer still uses. Read them by layer: a mean over layers hides the one that matters.",
        ("redo", "grama", "effective_rank", "threshold_rank", "stable_rank", "rank_"),
    ),
    Section("Other signals", "", ("",)),
)

FLOOR = "pass_floor"
"""A constant of the group size: a level, no line of its own."""

# Of signals that share axes, by their common stem: a title, and a note in place of all their meanings.
_TOGETHER = {
    "entropy": (
        "Token entropy",
        "at the sampling temperature: on the model's own answers, and on calibration responses",
    ),
    "top1_mass": ("Mass of the likeliest token", "on the model's own answers, and on the calibration responses"),
    "pass_at": ("pass@1 and pass@k", "share of answers that pass, and chance that one of g answers passes"),
    "redo": ("ReDo scores", "a neuron's mean activation over that of its layer: percentiles, median over layers"),
    "redo_dormant": ("Dormant neurons by ReDo", "neurons whose ReDo score is at most that, median over layers"),
    "grama": ("GraMa scores", "a neuron's mean gradient over that of its layer: percentiles, median over layers"),
    "grama_dormant": ("Dormant neurons by GraMa", "neurons whose GraMa score is at most that, median over layers"),
}

# Variants of one signal (sampled, percentiles, levels) share a figure.
_STEM = re.compile(r"(_sampled|_p\d+|_at_[^_]+|_\d+(\.\d+)?)$")


@dataclass(frozen=True)
class Group:
    """Signals of one unit that share a pair of axes."""

    title: str
    note: str
    names: list[str]


def grouped(found: Diagnosis) -> list[tuple[Section, list[str]]]:
    """Sections that have something to show, with their signals in the catalogue's order."""
    measured = {
        name
        for each in found.checkpoints
        for part in (each.numbers, each.layers, each.modules, each.positions, each.curves)
        for name in part
    }
    return sorted_into((name for name in found.signals if name in measured), SECTIONS)


def groups(names: Sequence[str], found: Diagnosis) -> list[Group]:
    """Of signals that have numbers: those that are drawn together."""
    stems: dict[tuple[str, str], list[str]] = {}
    for name in names:
        if name != FLOOR and any(name in each.numbers for each in found.checkpoints):
            stem = "pass_at" if name.startswith("pass_at_") else _STEM.sub("", name)
            stems.setdefault((stem, found.signals[name].axis), []).append(name)
    return [Group(*_said(stem, those, found), those) for (stem, _), those in stems.items()]


def _said(stem: str, names: Sequence[str], found: Diagnosis) -> tuple[str, str]:
    if len(names) == 1:
        return names[0], found.signals[names[0]].short
    return _TOGETHER.get(stem, (stem, "; ".join(filter(None, (found.signals[name].short for name in names)))))
