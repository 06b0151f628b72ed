# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The two passes over the calibration data: entropies of the base, then entropies and scores of the SFT model.

Ranks take the examples in rounds, example i goes to rank i % N; all get what is found of all, in the order of the
examples.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..config import ResetConfig
from ..neurons.architectures import Architecture
from ..neurons.modules import Module
from ..ops.attribution import is_finite
from .attribute import Attribution, attribute
from .capture import trace
from .dialogue import Example
from .entropy_scan import entropies, largest_gaps, not_finite
from .gathered import rounds
from .ranks import ALONE, Ranks
from .tallies import Tallies

T = TypeVar("T")
Tick = Callable[[int], None]


def _no_tick(done: int) -> None:
    """Progress that nobody asked for."""


@dataclass(frozen=True)
class Error:
    """How far the rebuilt logits z~ of some kept positions are from the model's own z."""

    count: int = 0
    total: float = 0.0
    """Sum of ``|z~ - z|``."""
    largest: float = 0.0
    magnitude: float = 0.0
    """Sum of ``|z|``."""

    @classmethod
    def of(cls, found: Attribution) -> "Error":
        error = (found.rebuilt.double() - found.logits.double()).abs()
        return cls(len(error), error.sum().item(), error.max().item(), found.logits.double().abs().sum().item())

    def __add__(self, other: "Error") -> "Error":
        return Error(
            self.count + other.count,
            self.total + other.total,
            max(self.largest, other.largest),
            self.magnitude + other.magnitude,
        )

    @property
    def relative(self) -> float:
        return self.total / self.magnitude if self.magnitude else 0.0

    def summary(self) -> dict[str, float]:
        return {"mean_absolute": self.total / self.count, "max_absolute": self.largest, "relative": self.relative}


@dataclass(frozen=True)
class Seen:
    """What the second pass tells of one example, its scores aside."""

    entropy: Tensor
    """Of the SFT model, ``[len(targets)]`` float32, in nats."""
    kept: list[int]
    """The indices, among its targets, of the positions that were kept."""
    error: Error


def scan(
    model: Any, examples: Sequence[Example], key: str, tick: Tick = _no_tick, ranks: Ranks = ALONE
) -> list[Tensor]:
    """Pass one: a model's entropy before each target of each example: ``[len(targets)]`` float32, in nats.

    Args:
        model: from `load.load_model` or `sharded.load.load_sharded`.
        examples: the same on every rank.
        key: how errors name the model's checkpoint.
        tick: called with the number of examples done.
        ranks: who shares the examples.

    Raises:
        InputError: named ``key``; NaN or infinite activations.
    """

    @torch.inference_mode()
    def work(number: int) -> Tensor:
        example = examples[number]
        ids = torch.tensor([example.ids], device=model.device)
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
        return entropies(model, hidden[torch.tensor(example.targets) - 1], key, number)

    finish = rounds(model, attributing=False)
    return [found for _, of_round in _rounds(work, len(examples), key, finish, tick, ranks) for found in of_round]


def score(
    model: Any,
    architecture: Architecture,
    modules: Sequence[Module],
    wanted: Sequence[Module],
    examples: Sequence[Example],
    base: Sequence[Tensor],
    settings: ResetConfig,
    key: str,
    tick: Tick = _no_tick,
    ranks: Ranks = ALONE,
) -> tuple[list[Seen], Tallies]:
    """Pass two: the SFT model's entropies, the positions with the largest gap to ``base``, and the scores there.

    Args:
        model: the SFT model.
        architecture: its constants.
        modules: all of its modules with neurons.
        wanted: those to tally.
        examples: as for `scan`.
        base: from `scan`, of the base.
        settings: positions, gradient, ratio, ranking, and of the selection.
        key: how errors name the SFT checkpoint.
        tick: as for `scan`.
        ranks: as for `scan`.

    Raises:
        InputError: named ``key``; NaN or infinite activations.
    """
    tallies = Tallies(wanted, settings, ranks)

    def work(number: int) -> Seen:
        example = examples[number]
        seen = trace(model, architecture, torch.tensor(example.ids, device=model.device))
        after = entropies(model, seen.hidden[torch.tensor(example.targets) - 1], key, number)
        kept = largest_gaps(base[number], after, settings.positions)
        targets = [example.targets[i] for i in kept]
        said = attribute(model, architecture, modules, seen, targets, each=settings.gradient == "each")
        if not all(is_finite(found) for found in (*said.scores.values(), said.rebuilt)):
            raise not_finite(key, number)
        tallies.add(said.scores)
        return Seen(after, kept, Error.of(said))

    found: list[Seen] = []
    finish = rounds(model, attributing=True)
    for numbers, of_round in _rounds(work, len(examples), key, finish, tick, ranks):
        found += of_round
        tallies.end_round(numbers)
    return found, tallies


def _rounds(
    work: Callable[[int], T], count: int, key: str, finish: Callable[[], None], tick: Tick, ranks: Ranks
) -> Iterator[tuple[range, list[T]]]:
    """The numbers of each round's examples and what ``work`` gave for them; a rank without one waits for the others."""
    for start in range(0, count, ranks.size):
        numbers = range(start, min(start + ranks.size, count))

        def mine(numbers: range = numbers[ranks.rank : ranks.rank + 1]) -> list[T]:
            return [work(number) for number in numbers]

        of_ranks = ranks.together(mine, key, finish)
        yield numbers, [found for of_rank in of_ranks for found in of_rank]
        tick(numbers.stop)
