# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the search for alpha."""

import math
from dataclasses import dataclass

from ..errors import InputError
from .checks import DEVICES, finite, one_of, positive_int, seeds

HALF = 0.5
"""The paper's default alpha: always among those that are tried, to compare with."""


@dataclass(frozen=True)
class TuningConfig:
    """Which alphas are tried, and on how many answers. In a verl job ``fusion.alpha=auto`` turns it on."""

    enabled: bool = False
    """Choose ``fusion.alpha`` before training. The same as ``fusion.alpha=auto``."""

    alphas: str = "0.2:0.8"
    """``LOW:HIGH``, tried in steps of ``step`` and then more finely around the best; or single alphas, separated by
    white space or commas, and then only these. 0.5 is always tried."""

    step: float = 0.1
    """Between the alphas that are tried first."""

    resolution: float = 0.05
    """No steps smaller than this."""

    data: str | None = None
    """Parquet or jsonl file of RL prompts. Default in a job: ``data.train_files``."""

    reward: str | None = None
    """``FILE.py:FUNCTION``, with verl's signature ``compute_score``. Default in a job: its
    ``reward.custom_reward_function``."""

    count: int = 256
    """Prompts for each alpha that stays in the race; those that are clearly worse leave it after a quarter or half."""

    group: int | None = None
    """Answers to each prompt. Default: 8; in a job ``rollout.n``."""

    max_response: int | None = None
    """Tokens of an answer. Default: 1024; in a job ``data.max_response_length``."""

    temperature: float | None = None
    """Of the answers. Default: 1; in a job ``rollout.temperature``."""

    best_of: int = 4
    """The k of the objective: the score that the best of k answers is expected to have."""

    pass_score: float = 0.5
    """An answer passes with a score above it: for the signals beside the objective."""

    seed: int = 0
    """Of the choice of prompts, of the sampling and of the bootstrap."""

    device: str = "auto"
    """Where the models run: ``cpu``, ``cuda``, or ``auto``: a GPU if there is one."""

    sampler: str = "transformers"
    """``transformers``, in float32, on random numbers that all alphas share; or ``vllm``, faster on a GPU, without
    these."""

    def __post_init__(self) -> None:
        positive_int(self, "count", "best_of")
        for name in ("group", "max_response"):
            if getattr(self, name) is not None:
                positive_int(self, name)
        one_of("device", self.device, DEVICES)
        one_of("sampler", self.sampler, ("transformers", "vllm"))
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise InputError("temperature", "a number above 0", repr(self.temperature), "use that of RL's rollouts")
        finite(self, "pass_score")
        seeds(self, "seed")
        if not 0.001 <= self.resolution <= self.step <= 1:
            got = f"step {self.step:g}, resolution {self.resolution:g}"
            raise InputError("step", "0.001 <= resolution <= step <= 1", got, "use 0.1 and 0.05")
        if self.group is not None and self.best_of > self.group:
            got = f"{self.best_of} of {self.group}"
            raise InputError("best_of", "no more than the answers to a prompt", got, "use half of them")
        _ = self.grid

    @property
    def grid(self) -> tuple[float, ...]:
        """The alphas to try first, ascending; beside them `HALF` is always tried."""
        found = numbers(self.alphas, "alphas", "0.2:0.8, or 0.4,0.5,0.6", ranges=True)
        if self.refines:
            low, high = found
            count = max(1, round((high - low) / self.step))
            # Rounded, so that 0.1 * 3 is 0.3, in errors, tables and keys.
            found = tuple(round(low + (high - low) * i / count, 6) for i in range(count + 1))
        return tuple(sorted(set(found)))

    @property
    def refines(self) -> bool:
        """Whether alphas between those of `grid` may be tried."""
        return ":" in self.alphas


def numbers(text: str, key: str, example: str, *, ranges: bool = False) -> tuple[float, ...]:
    """Numbers separated by white space or commas, all in [0, 1]; or with ``ranges`` ``LOW:HIGH``, its two ends.

    Raises:
        InputError: named ``key``; its fix is to use ``example``.
    """
    of_range = ranges and ":" in text
    try:
        found = tuple(float(part) for part in (text.split(":") if of_range else text.replace(",", " ").split()))
    except ValueError:
        found = ()
    if (
        not found
        or not all(0 <= value <= 1 for value in found)
        or (of_range and not (len(found) == 2 and found[0] < found[1]))
    ):
        expected = "LOW:HIGH or numbers" if ranges else "single numbers"
        raise InputError(key, f"{expected}, all in [0, 1]", repr(text), f"use {example}")
    return found
