# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What is answered, and who judges: a record that every process may hold, so nothing heavy is imported here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import TuningConfig
from ..errors import InputError
from ..probe.prompts import Prompts


@dataclass(frozen=True)
class Data:
    """Prompts, how they are answered, and the reward."""

    prompts: Prompts
    """With ``max_response``."""
    reward: str
    """``FILE.py:FUNCTION``."""
    group: int
    """Answers to each prompt."""
    temperature: float
    reward_arguments: Mapping[str, Any] = field(default_factory=dict)
    """More of the reward function's."""

    def check(self, settings: TuningConfig, key: str) -> None:
        """Find what is wrong without reading the prompts or running the reward function's file.

        Args:
            settings: of the search.
            key: how errors name them before their own names.

        Raises:
            InputError: named ``key`` and a setting, or ``prompts.key``.
        """
        if self.group < 2:
            raise InputError(f"{key}group", "at least 2 answers to compare", str(self.group), "use 8")
        if settings.best_of > self.group:
            got = f"{settings.best_of} of {self.group}"
            raise InputError(f"{key}best_of", "no more than the answers to a prompt", got, "use half of them")
        if not Path(self.reward.rpartition(":")[0]).expanduser().is_file():
            raise InputError(
                f"{key}reward", "FILE.py:FUNCTION, a file that is there", repr(self.reward), f"check {key}reward"
            )
        self.prompts.check()
