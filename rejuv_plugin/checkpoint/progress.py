# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Progress for people: bytes or examples, rate and time left on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from .digest import BYTE_PHASES, Progress

_PHASES = {
    **{"hash": "reading inputs", "write": "writing output"},
    **{"sample": "sampling answers", "base": "probing the base", "sft": "probing the SFT checkpoint"},
    "output": "probing the output",
}


class _Amount(ProgressColumn):
    """Bytes or examples."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes, self._count = DownloadColumn(True), MofNCompleteColumn()

    def render(self, task: Task) -> Text:
        return (self._bytes if task.fields["in_bytes"] else self._count).render(task)


class _Rate(TransferSpeedColumn):
    """Bytes a second; empty where something else is counted."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.fields["in_bytes"] else Text()


@contextmanager
def bars() -> Iterator[Progress]:
    """One bar per phase while the block runs; silent when stderr is not a terminal, so that logs stay short."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), _Amount(), _Rate()
    with Bars(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as display:
        tasks = {}

        def progress(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = display.add_task(_PHASES[phase], in_bytes=phase in BYTE_PHASES)
            display.update(tasks[phase], completed=done, total=total)

        yield progress
