# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters that several ranks share, whole for as long as they are looked at.

Code that reads a module's parameters outside its forward says so, ``with gathered(module):``, and code that runs a
model on one example after the other asks for its `rounds`. For ordinary modules both do nothing; for others whoever
shared them out (`sharded.model`) has left word here.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from torch import nn

_PART, _TURNS = "rejuv_part", "rejuv_turns"


class Part(Protocol):
    """Modules that are gathered together."""

    def gathered(self) -> AbstractContextManager[None]: ...


class Turns(Protocol):
    """The order in which the parts of a model are gathered."""

    def rounds(self, attributing: bool) -> Callable[[], None]: ...


def gathered(module: nn.Module) -> AbstractContextManager[None]:
    """The parameters of a module and of those in it are whole tensors inside the block; blocks may nest.

    Collective: in one round every rank gathers the same modules in the same order, see `rounds`.
    """
    part: Part | None = module.__dict__.get(_PART)
    return part.gathered() if part else nullcontext()


def rounds(model: nn.Module, *, attributing: bool) -> Callable[[], None]:
    """Begin passes over examples, in rounds of at most one example a rank.

    Args:
        model: which will be run once a round.
        attributing: whether `attribute.attribute` follows in each round.

    Returns:
        What a rank calls at the end of each round: it takes part in all gathering that the round still has for others,
        if this rank has no example or failed on it.
    """
    turns: Turns | None = model.__dict__.get(_TURNS)
    return turns.rounds(attributing) if turns else lambda: None


def gathers_with(module: nn.Module, part: Part) -> None:
    """Let `gathered` know what a module is a part of."""
    module.__dict__[_PART] = part


def takes_turns(model: Any, turns: Turns) -> None:
    """Let `rounds` know the order of a model's parts."""
    model.__dict__[_TURNS] = turns
