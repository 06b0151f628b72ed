# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Which signals are drawn together, and in what order a reader meets them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .read import Diagnosis


@dataclass(frozen=True)
class Section:
    """Signals whose names begin with one of ``prefixes`` and are in no section above."""

    title: str
    blurb: str
    prefixes: tuple[str, ...]


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

_TITLES = {
    "entropy": "Token entropy",
    "top1_mass": "Mass of the likeliest token",
    "pass_at": "pass@1 and pass@k",
    "redo": "ReDo scores, low percentiles",
    "redo_dormant": "Dormant neurons by ReDo",
    "grama": "GraMa scores, low percentiles",
    "grama_dormant": "Dormant neurons by GraMa",
}

# What is measured on the model's own answers, at a percentile or at a level goes with its like.
_STEM = re.compile(r"(_sampled|_p\d+|_at_[^_]+|_\d+(\.\d+)?)$")


@dataclass(frozen=True)
class Group:
    """Signals of one unit that share a pair of axes."""

    title: str
    names: list[str]


def grouped(found: Diagnosis) -> list[tuple[Section, list[str]]]:
    """Sections that have something to show, with their signals in the catalogue's order."""
    shown: dict[str, list[str]] = {section.title: [] for section in SECTIONS}
    for name in found.signals:
        if any(
            name in part
            for each in found.checkpoints
            for part in (each.numbers, each.layers, each.modules, each.positions, each.curves)
        ):
            home = next(section for section in SECTIONS if name.startswith(section.prefixes))
            shown[home.title].append(name)
    return [(section, shown[section.title]) for section in SECTIONS if shown[section.title]]


def groups(names: Sequence[str], found: Diagnosis) -> list[Group]:
    """Of signals that have numbers: those that are drawn together."""
    stems: dict[tuple[str, str], list[str]] = {}
    for name in names:
        if name != FLOOR and any(name in each.numbers for each in found.checkpoints):
            stem = "pass_at" if name.startswith("pass_at_") else _STEM.sub("", name)
            stems.setdefault((stem, found.signals[name].axis), []).append(name)
    return [Group(_TITLES.get(stem, stem) if len(those) > 1 else those[0], those) for (stem, _), those in stems.items()]
