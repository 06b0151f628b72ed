# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A monitor that fails in the middle of verl's forward must not end the job."""

from types import TracebackType


class Guard:
    """A ``with`` block that keeps the first exception for `check` and lets nothing but exits of the process through."""

    error: Exception | None = None

    def __enter__(self) -> "Guard":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> bool:
        if isinstance(error, Exception):
            self.error = self.error or error
            return True
        return False

    def check(self) -> None:
        """Raise what was kept."""
        if self.error:
            raise self.error
