# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl logs a failing plugin at DEBUG level and goes on without it. Ours must not vanish like that."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def failures_are_printed(entry_point: str) -> Iterator[None]:
    """Print one line to stderr when the block raises, then let verl have the exception."""
    try:
        yield
    except Exception as error:
        print(f"rejuv-plugin: entry point {entry_point!r} failed: {type(error).__name__}: {error}", file=sys.stderr)
        raise
