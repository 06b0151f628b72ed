# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What speaks against a checkpoint as a start for RL: the table of evidence, with thresholds and their sources.

The thresholds are nowhere else. Those that are ours are called so: they were set by judgement, before
`recipes/sft_ladder` measured how well they do.
"""

from dataclasses import dataclass
from typing import Literal

OVER, WEAK = "over-trained", "too weak"
_TRIAGE = "arXiv 2606.18487"
_OURS = "ours"


@dataclass(frozen=True)
class Evidence:
    """One rule on one signal."""

    signal: str
    bad: Literal["above", "below"]
    threshold: float | str
    """A number, or the signal that is the threshold."""
    of: str
    """What it is evidence for: `OVER` or `WEAK`."""
    weight: int
    """2: published for this very quantity, and enough alone for its verdict. 1: ours, and two of them are needed."""
    says: str
    """What it means if it is met."""
    source: str
    """Of the threshold."""
    stands_in_for: str | None = None
    """Judged only where that signal was not measured."""
    unless: tuple["Unless", ...] = ()
    """Not judged where one of these holds: there it means something else."""


@dataclass(frozen=True)
class Unless:
    """Another signal on one side of a level."""

    signal: str
    side: Literal["above", "below"]
    level: float | str
    """A number, or the signal that is the level."""
    says: str
    """Why there is nothing to judge there."""


CUT = Unless("finished", "below", 0.5, "most answers were cut before their end: allow longer ones by --max-response")

NEAR_ROUNDING = 0.3
"""Share of changed weights. Of normally distributed changes that are rounded to bfloat16, the largest 1 % have at most
0.2 of the squares where more than this changed, and 0.3 to all of them where less than half of this did."""


EVIDENCE = (
    Evidence(
        "entropy_sampled",
        "below",
        0.18,
        OVER,
        2,
        "it hardly explores: its answers to a prompt are nearly all the same, and what is not sampled earns no reward",
        f"{_TRIAGE}: pre-RL entropy at the sampling temperature predicts GRPO's outcome",
    ),
    Evidence(
        "entropy",
        "below",
        0.18,
        OVER,
        2,
        "it hardly explores: next tokens are nearly certain on the calibration responses",
        f"{_TRIAGE}, there for sampled answers; here teacher-forced, as no answers were sampled",
        stands_in_for="entropy_sampled",
    ),
    Evidence(
        "entropy_ratio",
        "below",
        0.5,
        OVER,
        1,
        "more than half of the base's entropy is gone",
        f"{_OURS}: the level is that of the alarm within a run, {_TRIAGE}",
    ),
    Evidence(
        "nll",
        "below",
        0.05,
        OVER,
        1,
        "it has the calibration responses by heart",
        f"{_OURS}; a loss near 0 as a sign: arXiv 2606.09932",
    ),
    Evidence(
        "nll_rise",
        "above",
        0.25,
        OVER,
        1,
        "it predicts the calibration responses worse than the base does: it learned other ones by heart",
        f"{_OURS}: overfitting, seen where the calibration data are held out",
    ),
    Evidence(
        "pass_gap",
        "below",
        0.05,
        OVER,
        1,
        "more tries hardly find more than the first one does, though most prompts are not solved",
        f"{_OURS}; a small gap as a sign: arXiv 2606.09932",
        unless=(
            Unless("pass_at_k", "above", 0.9, "nearly all prompts are solved, which leaves no room for a gap"),
            # That is low headroom.
            Unless("pass_at_k", "below", "pass_floor", "hardly any prompt is ever solved, so there can be no gap"),
            CUT,
        ),
    ),
    Evidence(
        "drift_spikes",
        "above",
        0.25,
        OVER,
        1,
        "the change from the base is sparse: a few weights moved far",
        f"{_OURS}; large and sparse drift as a sign: arXiv 2606.09932",
        unless=(
            Unless(
                "drift_changed",
                "below",
                NEAR_ROUNDING,
                "few of the weights changed, as of any small change that is rounded to 16 bits",
            ),
        ),
    ),
    Evidence(
        "pass_at_1",
        "below",
        "pass_floor",
        WEAK,
        2,
        "most groups have no right answer, so RL sees no difference to learn from",
        f"{_TRIAGE}: p*(g) = 1 - 2^(-1/g)",
        unless=(CUT,),
    ),
)

ENOUGH = 2
"""The weights of clear evidence add up to this for a verdict."""
