# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The processes that share a piece of work: how they talk, and how they end together."""

import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import InputError, one_line

T = TypeVar("T")


def place(rank: int, size: int) -> str:
    """How errors say where they were."""
    return f"on rank {rank} of {size}, {socket.gethostname()}"


class Ranks:
    """One process alone. Others override; all methods are collective: called on every rank, in the same order."""

    rank: int = 0
    size: int = 1

    def gather(self, value: T) -> list[T]:
        """What each rank gives, by rank; pickled."""
        return [value]

    def exchange(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Send ``parts[r]`` to rank r, and get what each rank has for this one, by rank.

        Args:
            parts: on the CPU, ``[n_r]``, of one dtype; every rank gives rank r as many elements.
        """
        return list(parts)

    def together(self, work: Callable[[], T], key: str, finish: Callable[[], None] = lambda: None) -> list[T]:
        """Do some work on every rank, and give what it returns, by rank. An error on any of them ends all.

        Args:
            work: this rank's; whatever it returns is pickled.
            key: how errors name what is worked on.
            finish: afterwards, also where the work failed: the collectives that the others still wait in.

        Raises:
            InputError: the same on every rank, that of the lowest rank that failed.
        """
        return [work()]

    def own(self, work: Callable[[], T], key: str) -> T:
        """As `together`, but each rank gets what its own work returns: for what is too large to be sent around."""
        found: list[T] = []
        self.together(lambda: found.append(work()), key)
        # Not kept here: a model goes when the pass that it is for ends.
        return found.pop()


ALONE = Ranks()


class World(Ranks):
    """The ranks of `torch.distributed`'s default group.

    Args:
        device: this rank's; the group's backend moves tensors on it.
        key: how errors name the settings of the reset before their own names.
    """

    def __init__(self, device: torch.device, key: str) -> None:
        self._device, self._key = device, key
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def gather(self, value: T) -> list[T]:
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def exchange(self, parts: Sequence[Tensor]) -> list[Tensor]:
        sent = torch.cat(list(parts)).to(self._device)
        mine = len(parts[self.rank])
        received = sent.new_empty(mine * self.size)
        dist.all_to_all_single(received, sent, [mine] * self.size, [len(part) for part in parts])
        return list(received.cpu().view(self.size, mine))

    def together(self, work: Callable[[], T], key: str, finish: Callable[[], None] = lambda: None) -> list[T]:
        found: T | None = None
        failed: InputError | None = None
        cause: Exception | None = None
        try:
            found = work()
        except Exception as error:
            # Its frames hold the tensors of a GPU that may have none to spare for what is left to do.
            traceback.clear_frames(error.__traceback__)
            cause, failed = error, self._as_input(error, key)
        finish()
        outcomes = self.gather((found, failed))
        errors = [theirs for _, theirs in outcomes if theirs is not None]
        if errors:
            if cause is not None and not isinstance(cause, InputError):
                traceback.print_exception(cause, file=sys.stderr)
            raise errors[0]
        # Without an error every rank's value is what its work returned.
        return [value for value, _ in outcomes]  # type: ignore[misc]

    def _as_input(self, error: Exception, key: str) -> InputError:
        where = place(self.rank, self.size)
        if isinstance(error, InputError):
            return InputError(error.key, error.expected, f"{error.got} ({where})", error.fix)
        reason = f"{type(error).__name__} {where}: {one_line(error)}"
        if isinstance(error, torch.OutOfMemoryError):
            expected = f"room for 1/{self.size} of the model in float32, one whole layer and one example"
            return InputError(
                key, expected, reason, f"cut examples sooner with {self._key}max_tokens, or use more GPUs"
            )
        return InputError(key, "work that succeeds on every rank", reason, "see the traceback in that rank's log")
