# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What hooks into verl's work may fail, but not end it."""

import functools
from collections.abc import Callable
from typing import Any


class Guard:
    """Runs functions; the first exception is kept, and after it nothing is run."""

    def __init__(self) -> None:
        self._error: Exception | None = None

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, which returns None when it fails and when something failed before."""

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self._error is None:
                try:
                    return function(*args, **kwargs)
                except Exception as error:
                    self._error = error
            return None

        return guarded

    def check(self) -> None:
        """Raise what was kept, and forget it."""
        error, self._error = self._error, None
        if error is not None:
            raise error
