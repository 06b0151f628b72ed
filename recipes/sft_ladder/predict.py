# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Which signal of a checkpoint, seen before RL, predicts what RL reaches from it? Over the rungs of each seed's ladder.

Everything here is decided before the numbers are seen: the rungs are compared within a ladder (Spearman's rho), never
across seeds; means over seeds have t-intervals over the seeds' rhos. A signal's direction is the diagnosis's own where
it has one, else it comes from the seeds of CHOSEN_ON, as thresholds do; these are judged on the other seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np
from analyse import Interval, Paired, interval, paired
from scipy import stats

CHOSEN_ON = (2, 3)

# What everything is compared with: accuracy of the checkpoint before RL on the held-out problems.
BASELINE = "accuracy before RL"
VERDICT = "verdict"
# No measurement at all: the rung's place in its ladder.
EPOCHS = "epochs of SFT"
# A checkpoint that cannot be learned from and one that is over-trained both promise little.
ORDER = {"over_trained": 0.0, "too_weak": 0.0, "at_risk": 1.0, "ready": 2.0}

# What is known before: a better accuracy or verdict promises more, and more epochs less.
DIRECTIONS = {BASELINE: 1, VERDICT: 1, EPOCHS: -1}
SIGN = {"higher": 1, "lower": -1}

# A start of RL is a bad one if RL from it ends this far below RL from the best rung of its ladder: about half of what
# the reset study found between the moderate and the over-trained start.
BAD = 0.15

# Values by seed, signal and rung; levels after RL by seed and rung.
Signals = Mapping[int, Mapping[str, Mapping[str, float]]]
Levels = Mapping[int, Mapping[str, float]]


def signals_of(diagnosis: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Finite numbers of a diagnosis (metrics.json) by signal and checkpoint; the verdict and the epochs as numbers."""
    found: dict[str, dict[str, float]] = {}
    for checkpoint in diagnosis["checkpoints"]:
        numbers = {name: number["value"] for name, number in checkpoint["numbers"].items()}
        if checkpoint["verdict"]:
            numbers[VERDICT] = ORDER.get(checkpoint["verdict"]["level"])
            numbers[EPOCHS] = float(checkpoint["name"].removeprefix("sft"))
        for name, value in numbers.items():
            if value is not None and isfinite(value):
                found.setdefault(name, {})[checkpoint["name"]] = value
    return found


def rank_correlation(signal: Mapping[str, float], levels: Mapping[str, float]) -> float | None:
    """Spearman's rho over the rungs that have both; None for fewer than four, or if the signal is the same for all."""
    rungs = [rung for rung in levels if rung in signal]
    values = [signal[rung] for rung in rungs]
    if len(rungs) < 4 or len(set(values)) == 1:
        return None
    return float(stats.spearmanr(values, [levels[rung] for rung in rungs]).statistic)


def directions_of(diagnosis: Mapping[str, Any]) -> dict[str, int]:
    """1 where the diagnosis calls a higher value better, -1 where a lower one."""
    return {entry["name"]: SIGN[entry["better"]] for entry in diagnosis["signals"] if entry["better"] in SIGN}


@dataclass(frozen=True)
class Threshold:
    """Says that a start is a bad one if ``direction * value`` is below ``direction * at``."""

    direction: int
    at: float

    def good(self, value: float) -> bool:
        return self.direction * value >= self.direction * self.at


def is_good(levels: Mapping[str, float]) -> dict[str, bool]:
    """By rung of one ladder."""
    best = max(levels.values())
    return {rung: level >= best - BAD for rung, level in levels.items()}


def balanced_accuracy(said: Sequence[bool], true: Sequence[bool]) -> float | None:
    """Mean of the shares of good and of bad starts that are called so; None if all are of a kind."""
    shares = [np.mean([s == t for s, t in zip(said, true, strict=True) if t == kind]) for kind in {*true}]
    return float(np.mean(shares)) if len(shares) == 2 else None


def pooled(signals: Signals, levels: Levels, name: str, seeds: Sequence[int]) -> tuple[list[float], list[bool]]:
    """A signal's values and whether the start is a good one, over the rungs of several seeds."""
    pairs = [
        (signals[seed][name][rung], good)
        for seed in seeds
        for rung, good in is_good(levels[seed]).items()
        if rung in signals[seed].get(name, {})
    ]
    return [value for value, _ in pairs], [good for _, good in pairs]


def choose_threshold(values: Sequence[float], good: Sequence[bool], direction: int) -> Threshold:
    """The midpoint between neighbouring values with the best balanced accuracy; of equals the middle one."""
    ends = sorted({*values})
    midpoints = [(low + high) / 2 for low, high in pairwise(ends)] or ends
    scores = [balanced_accuracy([Threshold(direction, at).good(v) for v in values], good) or 0.0 for at in midpoints]
    best = [at for at, score in zip(midpoints, scores, strict=True) if score == max(scores)]
    return Threshold(direction, best[len(best) // 2])


@dataclass(frozen=True)
class Prediction:
    """One signal. Rhos are times ``direction``, so that a good predictor's is near 1."""

    name: str
    direction: int
    told: bool
    """Whether the direction was known before, and not taken from the seeds of CHOSEN_ON."""
    held_out: Interval | None
    everywhere: Interval
    against_baseline: Paired | None
    """Rho minus the baseline's, by seed, on all seeds."""
    threshold: Threshold
    right: float | None
    """Balanced accuracy of the threshold on the held-out seeds."""
    regret: Interval
    """Level after RL of the ladder's best rung minus that of the rung which the signal would pick, all seeds."""


def picked(signal: Mapping[str, float], levels: Mapping[str, float], direction: int) -> float:
    """Level of the rung with the best value; the mean of those that share it."""
    known = {rung: direction * signal[rung] for rung in levels if rung in signal}
    return float(np.mean([levels[rung] for rung, value in known.items() if value == max(known.values())]))


def rhos_of(signals: Signals, levels: Levels, name: str) -> dict[int, float]:
    """By seed, where it is defined."""
    found = {seed: rank_correlation(signals[seed].get(name, {}), levels[seed]) for seed in levels}
    return {seed: rho for seed, rho in found.items() if rho is not None}


def predict(signals: Signals, levels: Levels, name: str, told: Mapping[str, int]) -> Prediction | None:
    """None for a signal that is not there, or says one thing of all, on the seeds of CHOSEN_ON."""
    rhos, baseline = rhos_of(signals, levels, name), rhos_of(signals, levels, BASELINE)
    chosen = [rho for seed, rho in rhos.items() if seed in CHOSEN_ON]
    if not chosen:
        return None
    direction = told.get(name, 1 if np.mean(chosen) >= 0 else -1)
    aligned = {seed: direction * rho for seed, rho in rhos.items()}
    held_out = [seed for seed in levels if seed not in CHOSEN_ON]
    outside = [aligned[seed] for seed in held_out if seed in aligned]
    threshold = choose_threshold(*pooled(signals, levels, name, [s for s in levels if s in CHOSEN_ON]), direction)
    values, good = pooled(signals, levels, name, held_out)
    regrets = [max(levels[seed].values()) - picked(signals[seed][name], levels[seed], direction) for seed in rhos]
    return Prediction(
        name=name,
        direction=direction,
        told=name in told,
        held_out=interval(outside) if outside else None,
        everywhere=interval(list(aligned.values())),
        against_baseline=paired(aligned, baseline) if name != BASELINE else None,
        threshold=threshold,
        right=balanced_accuracy([threshold.good(value) for value in values], good) if values else None,
        regret=interval(regrets),
    )


def predictions(signals: Signals, levels: Levels, told: Mapping[str, int]) -> list[Prediction]:
    """All signals, the best on all seeds first."""
    names = dict.fromkeys(name for of_seed in signals.values() for name in of_seed)
    found = [predict(signals, levels, name, DIRECTIONS | dict(told)) for name in names]
    return sorted((each for each in found if each), key=lambda each: -each.everywhere.mean)
