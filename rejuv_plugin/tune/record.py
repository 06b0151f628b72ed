# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a search found, as tuning.json has it and in words."""

from collections.abc import Sequence
from typing import Any

import torch

from ..config.tuning import HALF
from ..diagnose.found import finite
from ..ops.bootstrap import FEWEST, Estimate
from .compare import difference, mean, probability_best, told_apart
from .objective import Objective
from .scored import Candidate
from .search import Lane, leader

_ANSWERED = "entropy_sampled", "top1_mass_sampled", "finished"
SIGNALS = ("pass_at_1", "pass_at_k", "pass_gap", "gradient_share", *_ANSWERED)


def choice(lanes: Sequence[Lane], objective: Objective, seed: int) -> dict[str, Any]:
    """``choice`` of tuning.json: the best of those that finished, and how sure that is.

    Args:
        lanes: from `search.search`.
        objective: that they raced for.
        seed: of the bootstrap.
    """
    best, finalists = leader(lanes), [lane for lane in lanes if lane.stopped is None]
    found = mean(best.values, seed)
    likely = probability_best([lane.values for lane in finalists], seed)
    equals = [
        lane.candidate
        for lane in finalists
        if lane is not best and not told_apart(difference(best.values, lane.values, seed))
    ]
    half = next(lane for lane in lanes if lane.candidate == Candidate(HALF, lanes[0].candidate.rho))
    against = difference(best.values, half.values, seed)
    probability = next(p for lane, p in zip(finalists, likely, strict=True) if lane is best)
    return {
        "alpha": best.candidate.alpha,
        "rho": best.candidate.rho,
        "value": found.value,
        "interval": _interval(found),
        "probability_best": probability,
        "says": _says(lanes, found, equals, probability, against if best is not half else None, objective),
        "against_half": {"difference": against.value, "interval": _interval(against)},
    }


def trace(lanes: Sequence[Lane], pass_score: float, seed: int) -> list[dict[str, Any]]:
    """``trace`` of tuning.json: every candidate, with what the answers say beside the objective."""
    rows = []
    for lane in lanes:
        found, signals = mean(lane.values, seed), lane.scored.signals(pass_score, seed)
        rows.append(
            {
                "alpha": lane.candidate.alpha,
                "rho": lane.candidate.rho,
                "value": found.value,
                "interval": _interval(found),
                "prompts": len(lane.scored),
                "group": lane.scored.table.shape[1],
                "signals": signals.to_json(SIGNALS)["numbers"],
                "seconds": round(lane.scored.seconds, 3),
                "cached": lane.scored.cached,
                "stopped": lane.stopped,
            }
        )
    return finite(rows)


def _says(
    lanes: Sequence[Lane],
    found: Estimate,
    equals: Sequence[Candidate],
    probability: float,
    against: Estimate | None,
    objective: Objective,
) -> str:
    best, alphas = leader(lanes), [lane.candidate.alpha for lane in lanes]
    said = f"{best.candidate}: {objective.name} {_shown(found)}"
    scores = torch.cat([lane.scored.table.flatten() for lane in lanes])
    if bool((scores == scores[0]).all()):
        return (
            f"{said}; every answer scored {scores[0]:g}, so there is nothing to choose by: check the reward, whether "
            f"the prompts are too easy or too hard, and whether answers may be long enough ({best.scored.ended:.0%} "
            "ended by themselves)"
        )
    if len(lanes) == 1:
        return f"{said}; nothing else was tried"
    sure = f"the best in {probability:.0%} of resamples of the prompts"
    if equals:
        names = " or ".join(str(candidate) for candidate in sorted(equals))
        sure = f"cannot be told from {names} by these {len(best.values)} prompts; {sure}"
    said += f"; {sure}"
    if against:
        said += f"; against alpha {HALF:g}: {_shown(against, '+')}"
    edge = {min(alphas): "lowest", max(alphas): "highest"}.get(best.candidate.alpha)
    if edge and 0 < best.candidate.alpha < 1:
        said += f"; it is the {edge} alpha that was tried: those beyond it may be better"
    if not found.known:
        said += f"; fewer than {FEWEST} prompts, so how sure this is is not known"
    return said + ". Chosen as the highest of several, so its value and its lead are a little too high"


def _shown(found: Estimate, sign: str = "") -> str:
    text = f"{found.value:{sign}.3f}"
    return text + (f" [{found.interval[0]:{sign}.3f}, {found.interval[1]:{sign}.3f}]" if found.interval else "")


def _interval(found: Estimate) -> list[float] | None:
    return list(found.interval) if found.interval else None
