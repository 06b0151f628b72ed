# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Progress for people: what is done of what there is, rate and time left; bars on a terminal, lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import TaskID

# Called with the phase, what is done and what there is in all: bytes in these phases, examples or passes in any other.
# Where that is not known before the end, the most there can be.
Progress = Callable[[str, int, int], None]
BYTE_PHASES = ("hash", "write")

_PHASES = {
    **{"hash": "reading inputs", "write": "writing output"},
    **{"sample": "sampling answers", "base": "probing the base", "sft": "probing the SFT checkpoint"},
    "output": "probing the output",
}
_BARS = 12
"""At once: rich cuts what is lower than the terminal, which would be the bars that move."""
_SECONDS_WITHOUT_TERMINAL = 30.0


@contextmanager
def bars() -> Iterator[Progress]:
    """One bar per phase while the block runs, the latest ones; a line now and then when stderr is not a terminal, and
    none in a short job.

    A phase that has no description here is shown by its own name.
    """
    if not sys.stderr.isatty():
        yield ProgressLines(_SECONDS_WITHOUT_TERMINAL, name="rejuv", file=sys.stderr)
        return
    # Imported late: a job without a terminal must not pay for it.
    from .progress_bars import display

    with display() as shown:
        tasks: dict[str, TaskID] = {}

        def progress(phase: str, done: int, total: int) -> None:
            task = tasks.pop(phase, None)
            if task is None:
                task = shown.add_task(_PHASES.get(phase, phase), in_bytes=phase in BYTE_PHASES)
            tasks[phase] = task
            # In the order in which they last moved.
            for old in list(tasks.values())[:-_BARS][-1:]:
                shown.update(old, visible=False)
            shown.update(task, completed=done, total=total, visible=True)

        yield progress


class ProgressLines:
    """Called with ``(phase, done, in all)``, as a `Progress`; prints a line now and then, for output that is a log.

    The clock of the lines runs on from phase to phase: many short phases are a long job too.
    """

    def __init__(self, seconds: float = 10.0, *, name: str = "rejuvenation", file: TextIO | None = None) -> None:
        """
        Args:
            seconds: between lines, and before the first one.
            name: who speaks: each line begins with it.
            file: where to; None: stdout.
        """
        self._seconds, self._name, self._file = seconds, name, file
        self._printed = time.monotonic()
        self._phase, self._began, self._first, self._done = "", 0.0, 0, 0

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase != self._phase or done < self._done:
            # What a resumed phase begins with was not done in its time.
            self._phase, self._began, self._first = phase, now, done
        self._done = done
        if now - self._printed < self._seconds:
            return
        self._printed = now
        rate = (done - self._first) / (now - self._began) if now > self._began else 0.0
        counted = f"{done} of {total}"
        if phase in BYTE_PHASES:
            counted = f"{done / 1e9:.1f} of {total / 1e9:.1f} GB" + (f", {rate / 1e9:.2f} GB/s" if rate else "")
        left = f", {timedelta(seconds=round((total - done) / rate))} left" if rate else ""
        print(f"{self._name}: {_PHASES.get(phase, phase)}: {counted}{left}", file=self._file, flush=True)
