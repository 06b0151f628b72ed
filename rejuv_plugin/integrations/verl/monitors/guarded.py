# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What hooks into verl's work may fail, but not end it."""

import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any


class Guard:
    """Keeps the first exception, for `check`: of a ``with`` block, or of a function that it wraps. Exits of the process
    pass."""

    error: Exception | None = None

    def __enter__(self) -> "Guard":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> bool:
        if isinstance(error, Exception):
            self.error = self.error or error
            return True
        return False

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, which gives None when it fails, and is not run any more when something has failed."""

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self.error is None:
                with self:
                    return function(*args, **kwargs)
            return None

        return guarded

    def check(self) -> None:
        """Raise what was kept."""
        if self.error:
            raise self.error
