# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What is maximised over alpha, and why: the one place where this is decided.

No RL is run, so the objective must tell from answers of the start how high RL will come. RL needs both halves of it:
a start that has kept SFT's skill, and answers to one prompt that differ, so that there is something better to move to.
The level that the best of k answers has is both: it rises with skill, and with variety at equal skill. It is also a
level that can be reached: by the policy which answers as the best of k does, at most log k - (k - 1)/k nats from the
start (Beirami et al., arXiv 2401.01879); so k says how far RL is thought to move, 0.64 nats for k = 4. pass@1 alone
prefers checkpoints that always say the same, entropy alone prefers the base.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..ops.passes import best_of


@dataclass(frozen=True)
class Objective:
    """One number for each prompt, from the scores of its answers; a candidate's value is the mean over prompts."""

    name: str
    meaning: str
    unit: str
    source: str
    of_prompts: Callable[[Tensor], Tensor]
    """``[n, g]`` float64 scores to ``[n]`` float64; more is better."""

    def to_json(self) -> dict[str, str]:
        return {
            "name": self.name,
            "meaning": self.meaning,
            "unit": self.unit,
            "source": self.source,
            "better": "higher",
        }


def objective(k: int) -> Objective:
    """The score that the best of k answers is expected to have, mean over prompts."""
    return Objective(
        f"best_of_{k}",
        f"score that the best of {k} answers is expected to have, mean over prompts: pass@{k} for scores of 0 and 1. "
        "It rises with skill and, at equal skill, with variety; RL can only strengthen answers that are sampled",
        "as the reward",
        "Chen et al., arXiv 2107.03374, Eq. 1, for scores of any kind; as a level within reach: arXiv 2401.01879",
        lambda scores: best_of(scores, k),
    )
