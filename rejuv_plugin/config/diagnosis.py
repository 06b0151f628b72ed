# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of a diagnosis."""

import math
from dataclasses import dataclass

from ..errors import InputError
from .checks import DEVICES, finite, one_of, positive_int, seeds

SIGNALS = ("likelihood", "neurons", "ranks", "drift", "sharpness", "answers")
"""What can be measured, in groups that cost a pass of their own or a part of one."""


@dataclass(frozen=True)
class DiagnosisConfig:
    """What `diagnose` measures, and on what."""

    calibration: str = ""
    """Parquet or jsonl file of ``prompt`` and ``response``, or of chat ``messages``: what SFT trained on, or better of
    its kind and held out."""

    prompts: tuple[str, ...] = ()
    """RL training data to answer, as verl has it. None: nothing is sampled."""

    reward: str | None = None
    """``FILE.py:FUNCTION``, with verl's signature ``compute_score``. None: answers are sampled and not judged."""

    group: int = 8
    """Answers to each prompt: what RL will use."""

    count: int = 64
    """Prompts to answer."""

    max_response: int = 1024
    """Tokens of an answer."""

    temperature: float = 1.0
    """Of RL's rollouts."""

    pass_score: float = 0.5
    """An answer passes with a score above it: right for scores of 0 and 1, and of -1 and 1."""

    examples: int = 64
    """Calibration dialogues to look at, from the beginning of the file."""

    max_tokens: int = 1024
    """Longer dialogues are cut here."""

    signals: str = " ".join(SIGNALS)
    """Groups of signals to measure, separated by white space or commas."""

    hessian: bool = False
    """Measure the Hessian's largest eigenvalue too: some dozens of passes forward and backward."""

    seed: int = 0
    """Of the choice of prompts, of the sampling and of the bootstrap."""

    device: str = "auto"
    """Where the models run: ``cpu``, ``cuda``, or ``auto``: a GPU if there is one."""

    def __post_init__(self) -> None:
        if not self.calibration:
            raise InputError("calibration", "a file of prompts and responses", "none", "make one with rejuv calibrate")
        positive_int(self, "group", "count", "max_response", "examples", "max_tokens")
        one_of("device", self.device, DEVICES)
        if not 0 < self.temperature < math.inf:
            raise InputError("temperature", "a number above 0", repr(self.temperature), "use 1.0, as RL does")
        finite(self, "pass_score")
        seeds(self, "seed")
        for name in self.wanted:
            one_of("signals", name, SIGNALS)
        if not self.wanted:
            raise InputError("signals", f"some of {', '.join(SIGNALS)}", "none", "leave it out: all are measured")
        if self.reward and not self.prompts:
            raise InputError("prompts", "prompts to answer, with a reward", "none", "give RL's training data")
        if self.prompts and "answers" not in self.wanted:
            fix = "add answers, or leave the prompts out"
            raise InputError("signals", "answers, with prompts", repr(self.signals), fix)
        # All signals are the default, which is nobody's wish for answers.
        if not self.prompts and "answers" in self.wanted < set(SIGNALS):
            fix = "give RL's training data, or leave answers out of signals"
            raise InputError("prompts", "prompts to answer, with answers among signals", "none", fix)
        if self.hessian and "likelihood" not in self.wanted:
            raise InputError("signals", "likelihood, with hessian", self.signals, "add likelihood")

    @property
    def wanted(self) -> frozenset[str]:
        """The groups of `signals`."""
        return frozenset(self.signals.replace(",", " ").split())

    @property
    def samples(self) -> bool:
        """Whether answers are sampled."""
        return bool(self.prompts) and "answers" in self.wanted
