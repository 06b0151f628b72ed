# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What hooks into verl's work may fail, but not end it."""

import functools
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar


class Guard:
    """Keeps the first exception, without its traceback, for `check`: of a ``with`` block, or of a function that it
    wraps. Exits of the process pass."""

    error: Exception | None = None
    _seconds: ClassVar[float] = 0.0
    _began = 0.0

    @classmethod
    def spent(cls) -> float:
        """Seconds in all guards of this process since the last call; of a GPU those of its launches, which it may still
        be working on."""
        seconds, cls._seconds = cls._seconds, 0.0
        return seconds

    def __enter__(self) -> "Guard":
        self._began = time.perf_counter()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> bool:
        Guard._seconds += time.perf_counter() - self._began
        if isinstance(error, Exception):
            self.error = self.error or _alone(error)
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


def _alone(error: Exception) -> Exception:
    """Without the frames it came through: in their locals are logits, activations and whole weights, which would stay
    on the device for the rest of the job, and the rollout wants that memory."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)
