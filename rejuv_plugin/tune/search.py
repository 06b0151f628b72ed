# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The search: a race over the grid, then between the best and its neighbours.

All candidates answer the same prompts with common random numbers, a quarter of them first, then half, then all. After
each part those that are clearly worse than the leader leave: the interval of the paired difference lies below 0, at
95 % for all looks of a race together (Bonferroni), as its leader is the luckiest of many. 0.5 stays to the end, to
compare with. After less than 16 prompts nobody leaves, as a bootstrap over a few prompts is far too sure. Then alphas
half a step from the best are tried, while the best can be told from what is a step away: where it cannot, smaller steps
would only follow the noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..config.tuning import HALF
from ..ops.bootstrap import FEWEST, LEVEL
from .compare import clearly_below, difference, told_apart
from .objective import Objective
from .scored import NOTHING, Candidate, Scored

Ask = Callable[[Candidate, int], Scored]
"""What a candidate's answers to the first so many prompts earned."""


@dataclass
class Lane:
    """One candidate's race."""

    candidate: Candidate
    scored: Scored = NOTHING
    values: Tensor = field(default_factory=lambda: NOTHING.table.flatten())
    """Of the objective, ``[n]`` float64."""
    stopped: str | None = None
    """Why it left the race."""


@dataclass(frozen=True)
class Search:
    """How to search."""

    grid: tuple[float, ...]
    """Alphas to try first, ascending; no others are tried outside of them."""
    rhos: tuple[float, ...]
    """Each is tried with every alpha of the grid."""
    resolution: float | None
    """Alphas are not tried closer to one another; None: no others than the grid's."""
    count: int
    """Prompts."""
    seed: int
    """Of the bootstrap."""
    also: tuple[float, ...] = ()
    """More alphas to try with the grid's, wherever they are."""

    @property
    def rungs(self) -> tuple[int, ...]:
        """How many prompts have been answered when candidates are compared."""
        early = (self.count // 4, self.count // 2)
        return (*(count for count in early if count >= FEWEST), self.count)


def search(how: Search, objective: Objective, ask: Ask) -> list[Lane]:
    """Race all candidates.

    Returns:
        Every lane, in the order of alpha, then rho. Those that finished have all prompts, and there is at least one.
    """
    first = sorted({*how.grid, *how.also})
    lanes = _race([Candidate(a, r) for r in how.rhos for a in first], [], how, objective, ask)
    step = max((b - a for a, b in zip(how.grid, how.grid[1:], strict=False)), default=0.0)
    while how.resolution is not None and step / 2 >= how.resolution - 1e-9:
        best = leader(lanes)
        if not _told_from_a_neighbour(best, lanes, step, how.seed):
            break
        step /= 2
        tried = {lane.candidate for lane in lanes}
        near = [Candidate(round(best.candidate.alpha + d, 6), best.candidate.rho) for d in (-step, step)]
        new = [c for c in near if c not in tried and how.grid[0] <= c.alpha <= how.grid[-1]]
        lanes = _race(new, lanes, how, objective, ask)
    return sorted(lanes, key=lambda lane: lane.candidate)


def leader(lanes: Sequence[Lane]) -> Lane:
    """Of those that finished the one with the highest mean; of equals the closest to the paper's default."""
    finished = (lane for lane in lanes if lane.stopped is None)
    return max(finished, key=lambda lane: (lane.values.mean().item(), -abs(lane.candidate.alpha - HALF)))


def _race(
    new: Sequence[Candidate], finished: Sequence[Lane], how: Search, objective: Objective, ask: Ask
) -> list[Lane]:
    """Let new candidates race one another and those that finished; returns all lanes."""
    lanes = [Lane(candidate) for candidate in new]
    looks = max(1, len(lanes) * (len(how.rungs) - 1))
    for count in how.rungs:
        racing = [lane for lane in lanes if lane.stopped is None]
        for lane in racing:
            lane.scored = ask(lane.candidate, count)
            lane.values = objective.of_prompts(lane.scored.table)
        there = [*racing, *(lane for lane in finished if lane.stopped is None)]
        if not there:
            break
        best = max(there, key=lambda lane: lane.values[:count].mean().item())
        leaving = [lane for lane in racing if lane is not best and lane.candidate.alpha != HALF]
        for lane in leaving if count < how.count else ():
            found = difference(lane.values, best.values, how.seed, 1 - (1 - LEVEL) / looks)
            if clearly_below(found):
                assert found.interval is not None
                low, high = found.interval
                lane.stopped = (
                    f"clearly worse than {best.candidate} after {count} prompts: {found.value:+.3f} "
                    f"[{low:+.3f}, {high:+.3f}]"
                )
    return [*finished, *lanes]


def _told_from_a_neighbour(best: Lane, lanes: Sequence[Lane], step: float, seed: int) -> bool:
    """Whether the best is told from a candidate about a step away."""
    near = [
        lane
        for lane in lanes
        if lane is not best
        and lane.candidate.rho == best.candidate.rho
        and abs(lane.candidate.alpha - best.candidate.alpha) <= step * 1.01
    ]
    return any(told_apart(difference(best.values, lane.values, seed)) for lane in near)
