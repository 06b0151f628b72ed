# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Progress for people: bytes or examples, rate and time left on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Called with the phase, what is done and what there is in all: bytes in these phases, examples in any other.
Progress = Callable[[str, int, int], None]
BYTE_PHASES = ("hash", "write")

_PHASES = {
    **{"hash": "reading inputs", "write": "writing output"},
    **{"sample": "sampling answers", "base": "probing the base", "sft": "probing the SFT checkpoint"},
    "output": "probing the output",
}


@contextmanager
def bars() -> Iterator[Progress]:
    """One bar per phase while the block runs; silent when stderr is not a terminal, so that logs stay short.

    A phase that has no description here is shown by its own name.
    """
    if not sys.stderr.isatty():
        yield lambda phase, done, total: None
        return
    # Imported late: a job without a terminal must not pay for it.
    from .progress_bars import display

    with display() as shown:
        tasks = {}

        def progress(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = shown.add_task(_PHASES.get(phase, phase), in_bytes=phase in BYTE_PHASES)
            shown.update(tasks[phase], completed=done, total=total)

        yield progress
