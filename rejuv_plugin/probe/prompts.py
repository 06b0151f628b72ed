# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Where prompts come from: a record that every process may hold, so nothing heavy is imported here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError

SINGLE_TURN = "single_turn_agent"
"""verl's name for an agent loop of one answer, in its configuration and in the column ``agent_name``."""
_SUFFIXES = (".parquet", ".jsonl")


def check_file(path: str, key: str) -> Path:
    """The calibration file, which is there and has a known suffix.

    Raises:
        InputError: named ``key``.
    """
    file = Path(path).expanduser()
    if not file.is_file() or file.suffix not in _SUFFIXES:
        got = f"{path!r}, which is {'neither' if file.is_file() else 'no file'}"
        raise InputError(key, f"a {' or '.join(_SUFFIXES)} file", got, f"check {key}")
    return file


@dataclass(frozen=True)
class Prompts:
    """RL training data to sample from, for a user who has no calibration data."""

    files: tuple[str, ...]
    column: str
    max_prompt: int | None
    """Tokens; longer prompts are passed over. None: as many as the context holds beside a response."""
    max_response: int
    """Tokens."""
    key: str
    """How errors name the files."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """More arguments of the chat template: ``enable_thinking`` for one."""

    def check(self) -> None:
        """Find what is wrong with the files without reading them.

        Raises:
            InputError: named ``key``.
        """
        if not self.files:
            raise InputError(self.key, "files with prompts to sample answers to", "none", "give calibration data")
        for file in self.files:
            try:
                check_file(file, self.key)
            except InputError as error:
                raise InputError(
                    error.key, error.expected, error.got, f"{error.fix}, or give calibration data"
                ) from None
