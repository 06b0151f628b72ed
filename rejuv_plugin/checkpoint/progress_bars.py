# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What the bars of `progress` look like."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text


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


def display() -> Progress:
    """Bars on stderr, for tasks with a field ``in_bytes``."""
    columns = TextColumn("{task.description}", markup=False), BarColumn(), _Amount(), _Rate(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True))
