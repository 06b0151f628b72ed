# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Progress for people: bytes, rate and time left on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from .digest import Progress

_PHASES = {"hash": "reading inputs", "write": "writing output"}


@contextmanager
def bars() -> Iterator[Progress]:
    """One bar per phase while the block runs; silent when stderr is not a terminal, so that logs stay short."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn()
    with Bars(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as display:
        tasks = {}

        def progress(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = display.add_task(_PHASES[phase])
            display.update(tasks[phase], completed=done, total=total)

        yield progress
