# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Tables on the console, and in a log."""

from rich.console import Console
from rich.table import Table

_LOG_WIDTH = 160
"""Columns. A log has no width of its own, and a table that is folded there cannot be read."""


def show(table: Table) -> None:
    """Print a table."""
    Console(width=None if Console().is_terminal else _LOG_WIDTH).print(table)
