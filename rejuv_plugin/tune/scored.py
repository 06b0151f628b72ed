# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What is tried, and what its answers earned."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ..diagnose.answers import finished, passes, variety
from ..diagnose.found import Found

_COLUMNS = ("scores", "lengths", "finished", "entropy", "top1")


@dataclass(frozen=True, order=True)
class Candidate:
    """One start of RL."""

    alpha: float
    """Weight of the SFT checkpoint."""
    rho: float = 0.0
    """Share of neurons that are reset at each position; 0: fusion alone."""

    def __str__(self) -> str:
        return f"alpha {self.alpha:g}" + (f", rho {self.rho:g}" if self.rho else "")


@dataclass(frozen=True)
class Scored:
    """Of some prompts, n of them, what a candidate's g answers to each were like; all ``[n][g]``."""

    scores: list[list[float]]
    lengths: list[list[int]]
    finished: list[list[bool]]
    entropy: list[list[float]]
    """See `probe.answers.Answers`."""
    top1: list[list[float]]
    seconds: float
    """That they took, on whichever machine."""
    cached: bool = False
    """Whether all of it was known before."""

    def __len__(self) -> int:
        return len(self.scores)

    def __add__(self, other: "Scored") -> "Scored":
        parts: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in _COLUMNS}
        return Scored(**parts, seconds=self.seconds + other.seconds, cached=self.cached and other.cached)

    def first(self, count: int) -> "Scored":
        """Of the first ``count`` prompts; ``seconds`` in proportion."""
        parts: dict[str, Any] = {name: getattr(self, name)[:count] for name in _COLUMNS}
        share = min(1.0, count / len(self)) if len(self) else 1.0
        return Scored(**parts, seconds=self.seconds * share, cached=self.cached)

    @property
    def table(self) -> Tensor:
        """The scores, ``[n, g]`` float64."""
        return torch.tensor(self.scores, dtype=torch.float64)

    @property
    def ended(self) -> float:
        """Share of the answers that ended by themselves."""
        return sum(map(sum, self.finished)) / max(1, sum(map(len, self.finished)))

    def signals(self, pass_score: float, seed: int) -> Found:
        """What `diagnose` says of answers."""
        found = variety(self.lengths, self.entropy, self.top1, seed) | finished(self.finished, seed)
        return found | passes(self.table, pass_score, seed)


NOTHING = Scored(**{f.name: [] for f in fields(Scored) if f.name in _COLUMNS}, seconds=0.0, cached=True)
"""Of no prompt."""
