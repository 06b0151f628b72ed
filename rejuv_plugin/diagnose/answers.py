# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint's own answers say: how varied they are, how many pass, whether RL can learn from them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..ops.bootstrap import bootstrap, ratio
from ..ops.passes import pass_at, pass_floor
from .found import Found, curve, plain


def variety(
    tokens: Sequence[Sequence[int]], entropy: Sequence[Sequence[float]], top1: Sequence[Sequence[float]], seed: int
) -> Found:
    """Entropy and top-1 mass, means over all tokens of all answers, with intervals by a bootstrap over prompts.

    Args:
        tokens: ``[P][g]`` lengths of the answers.
        entropy, top1: ``[P][g]`` means over each answer's tokens; NaN where the sampler cannot tell.
        seed: of the bootstrap.
    """
    lengths = torch.tensor(tokens, dtype=torch.float64)

    def sums(means: Sequence[Sequence[float]]) -> Tensor:
        # An answer without a token has no mean, and counts for nothing.
        totals = torch.where(lengths > 0, torch.tensor(means, dtype=torch.float64) * lengths, 0)
        return torch.stack([totals.sum(1), lengths.sum(1)], -1)

    return Found(
        {
            "entropy_sampled": bootstrap(sums(entropy), ratio, seed),
            "top1_mass_sampled": bootstrap(sums(top1), ratio, seed),
        }
    )


def finished(answers: Sequence[Sequence[bool]], seed: int) -> Found:
    """The share of answers that end within the tokens they may have, ``[P][g]``."""
    ended = torch.tensor(answers, dtype=torch.float64)
    sums = torch.stack([ended.sum(1), torch.full((len(ended),), float(ended.shape[1]))], -1)
    return Found({"finished": bootstrap(sums.double(), ratio, seed)})


def passes(scores: Tensor, pass_score: float, seed: int) -> Found:
    """pass@1, pass@k, their gap, the share of prompts with a gradient, and p*(g), k = g.

    Of single answers, g = 1, the rates alone: there is nothing to compare, and a gap of 0 would be no finding.

    Args:
        scores: ``[P, g]`` float64.
        pass_score: an answer passes with a score above it.
        seed: of the bootstrap.
    """
    prompts, group = scores.shape
    passed = (scores > pass_score).sum(1)
    once, ever = pass_at(passed, group, 1), pass_at(passed, group, group)
    differ = (scores != scores[:, :1]).any(1).double()
    rows = torch.stack([once, ever, ever - once, differ, torch.ones(prompts, dtype=torch.float64)], -1)

    def mean(column: int) -> Tensor:
        return rows[:, [column, -1]]

    rates = {"pass_at_1": bootstrap(mean(0), ratio, seed), "pass_at_k": bootstrap(mean(1), ratio, seed)}
    if group == 1:
        return Found({**rates, "pass_gap": None, "gradient_share": None, "pass_floor": None})
    ks = range(1, group + 1)
    return Found(
        {
            **rates,
            "pass_gap": bootstrap(mean(2), ratio, seed),
            "gradient_share": bootstrap(mean(3), ratio, seed),
            "pass_floor": plain(pass_floor(group)),
        },
        curves={
            "pass_at_k": curve(
                list(ks),
                [float(pass_at(passed, group, k).mean()) for k in ks],
                "k answers",
                "pass@k, mean over prompts",
            )
        },
    )
