# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The scores of all examples, counted module by module, each module by one of the ranks.

Every sum is over examples in their order, whichever ranks they were scored on, so that nothing depends on how many
ranks there are.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ..config import ResetConfig
from ..neurons.modules import Module
from ..neurons.reset_set import jaccard
from ..ops.selection import Tally, select
from .ranks import Ranks

V = TypeVar("V")


class Tallies:
    """Over even and over odd examples. Rank r of N keeps modules r, r + N, r + 2 N, ...: 32 bytes a neuron.

    Args:
        modules: to tally.
        settings: ratio, ranking, and of the selection.
        ranks: who shares the examples.
    """

    def __init__(self, modules: Sequence[Module], settings: ResetConfig, ranks: Ranks) -> None:
        self._settings, self._ranks = settings, ranks
        self._shares = [modules[rank :: ranks.size] for rank in range(ranks.size)]
        self._mine = self._shares[ranks.rank]
        self._halves = tuple({m.name: self._tally(m) for m in self._mine} for _ in range(2))
        self._parts: list[Tensor] = []

    def add(self, scores: Mapping[str, Tensor]) -> None:
        """Take this rank's example of a round: by `Module.name` ``[P, neurons]``, any floating dtype, on any device."""
        self._parts = [self._packed(share, scores) for share in self._shares]

    def end_round(self, numbers: range) -> None:
        """Count what every rank has taken; collective.

        Args:
            numbers: of the round's examples: those of rank 0, 1, ...; the last ranks may have none.
        """
        if not self._parts:
            self.add({})
        for number, part in zip(numbers, self._ranks.exchange(self._parts), strict=False):
            counts = part.split([2 * m.count + 2 for m in self._mine])
            for module, counted in zip(self._mine, counts, strict=True):
                tally = self._halves[number % 2][module.name]
                tally.votes += counted[: module.count].to(torch.int64)
                tally.total += counted[module.count : -2]
                tally.positions += int(counted[-2])
                tally.close += int(counted[-1])
        self._parts = []

    def selected(self) -> dict[str, tuple[int, ...]]:
        """The chosen neurons of every module, on every rank, ascending; collective."""
        first, second = self._halves
        return self._everywhere({m.name: self._select(first[m.name] | second[m.name], m) for m in self._mine})

    def overlaps(self) -> dict[str, float | None]:
        """For every module, on every rank, the Jaccard index of the two halves' sets; None of an expert that one of the
        halves has no token for. Collective."""
        found: dict[str, float | None] = {}
        for m in self._mine:
            halves = [half[m.name] for half in self._halves]
            seen = all(half.positions for half in halves)
            found[m.name] = jaccard(*(set(self._select(half, m)) for half in halves)) if seen else None
        return self._everywhere(found)

    def cuts(self) -> dict[str, int] | None:
        """How many cuts between chosen and other neurons there were ``in_all``, one a module and position, and how many
        of them ``close`` (see `selection.CLOSE`); on every rank, collective. None where other cuts decide: of sums over
        all positions, of votes, of none."""
        settings = self._settings
        if (settings.rule, settings.select, settings.cap) != ("union", "top", 1.0):
            return None
        mine = [half[m.name] for half in self._halves for m in self._mine]
        found = self._ranks.gather((sum(t.positions for t in mine), sum(t.close for t in mine)))
        return {"in_all": sum(in_all for in_all, _ in found), "close": sum(close for _, close in found)}

    def _everywhere(self, mine: dict[str, V]) -> dict[str, V]:
        return {name: value for share in self._ranks.gather(mine) for name, value in share.items()}

    def _select(self, tally: Tally, module: Module) -> tuple[int, ...]:
        settings = self._settings
        return select(tally, settings.rule, settings.select, settings.seed, module.name, settings.cap)

    def _tally(self, module: Module) -> Tally:
        return Tally(module.count, self._settings.ratio, signed=self._settings.ranking == "signed")

    def _packed(self, share: Sequence[Module], scores: Mapping[str, Tensor]) -> Tensor:
        """Votes, sums, and numbers of positions and of close cuts of one example, module after module:
        ``[sum(2 * neurons + 2)]`` float64, which holds the integers exactly."""
        found = [torch.zeros(0, dtype=torch.float64)]
        for module in share:
            tally = self._tally(module)
            if module.name in scores:
                tally.add(scores[module.name])
            found += [tally.votes.to(torch.float64), tally.total, torch.tensor([tally.positions, tally.close]).double()]
        return torch.cat(found)
