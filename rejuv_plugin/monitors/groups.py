# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the answers to a prompt differ enough to learn from, where the algorithm compares them with one another.

A critic, or a baseline over the batch, gives an advantage to an answer whose group earns the same, and to one that has
no group: there neither p*(g) nor equal scores say anything about the gradient.
"""

from collections.abc import Sequence

import numpy as np

from .metric import Metric

_COST = "one look at the batch's scores"
_SOURCE = "arXiv 2606.18487: p*(g) = 1 - 2^(-1/g)"

CATALOGUE = (
    Metric(
        "pass_rate",
        "share of answers whose score is above `monitors.pass_score`; left out where groups are filtered (DAPO), as "
        "the batch is no sample of the answers then",
        "share, 0 to 1",
        "above pass_rate_floor, and below 1 minus it",
        _COST,
        "mean over answers",
        _SOURCE,
    ),
    Metric(
        "pass_rate_floor",
        "p*(g): at this pass rate half of the groups of g answers have no pass at all, and below it most",
        "share, 0 to 1; 0.083 at g = 8",
        "a constant of the job; left out where less than two answers to a prompt are compared",
        "none",
        "none: of the batch's mean group size",
        _SOURCE,
    ),
    Metric(
        "zero_advantage_groups",
        "share of prompts all of whose answers have one score, and so no advantage in GRPO; left out where the "
        "algorithm does not compare answers (GAE)",
        "share, 0 to 1",
        "below 0.5 while fewer answers pass than fail (ours); those prompts cost rollouts and teach nothing",
        _COST,
        "share of the prompts with two answers or more",
        "ours; DAPO filters such groups (arXiv 2503.14476)",
    ),
)


def signals(
    scores: Sequence[float], prompts: Sequence[str], pass_score: float, *, compared: bool, filtered: bool = False
) -> dict[str, float]:
    """Metrics of one batch; empty for an empty one.

    Args:
        scores: one an answer, as the reward function gave it.
        prompts: what identifies each answer's prompt.
        pass_score: an answer passes with a score above it.
        compared: whether advantages come of comparing the answers to a prompt. Otherwise there is the pass rate alone.
        filtered: whether prompts whose answers all earn the same were replaced before. What the policy can do does not
            show in the others: they neither tell its pass rate, nor how many prompts taught it nothing.
    """
    # Here, since pages read the metrics above without torch.
    from ..ops.passes import pass_floor

    if not scores:
        return {}
    groups: dict[str, list[float]] = {}
    for score, prompt in zip(scores, prompts, strict=True):
        groups.setdefault(prompt, []).append(score)
    found = {} if filtered else {"pass_rate": float(np.mean([score > pass_score for score in scores]))}
    if not compared:
        return found
    # p*(1) is a half, which the pass rate of any job that learns comes through.
    if not filtered and len(scores) >= 2 * len(groups):
        found["pass_rate_floor"] = pass_floor(len(scores) / len(groups))
    several = [group for group in groups.values() if len(group) > 1]
    if several:
        found["zero_advantage_groups"] = float(np.mean([len(set(group)) == 1 for group in several]))
    return found
