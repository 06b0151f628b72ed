# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Progress for a process whose output is a log: a line now and then instead of a bar."""

import time

from ...checkpoint.progress import BYTE_PHASES

_SECONDS_BETWEEN_LINES = 10.0


class ProgressLines:
    """Called with ``(phase, done, in all)``, of bytes or examples; prints a rate and the time left now and then."""

    def __init__(self) -> None:
        self._phase, self._began, self._printed = "", 0.0, 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._began, self._printed = phase, now, now
        if now - self._printed < _SECONDS_BETWEEN_LINES:
            return
        self._printed = now
        rate = done / (now - self._began)
        left = (total - done) / rate if rate else float("inf")
        counted = (
            f"{done / 1e9:.1f} of {total / 1e9:.1f} GB, {rate / 1e9:.2f} GB/s"
            if phase in BYTE_PHASES
            else f"{done} of {total} examples"
        )
        print(f"rejuvenation: {phase} {counted}, {left:.0f} s left", flush=True)
