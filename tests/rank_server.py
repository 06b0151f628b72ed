# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A process that imports modules once, and runs functions on ranks that it forks.

For modules that change a whole process, or that verl must find when it is imported: no test's own process has them.
"""

import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import ranks


class RanksFailed(AssertionError):
    """``errors`` has the tracebacks, by rank; -1 for what nobody knows the rank of."""

    def __init__(self, errors: dict[int, str]) -> None:
        super().__init__("\n".join(f"rank {rank}: {error}" for rank, error in sorted(errors.items())))
        self.errors = errors


class Server:
    """Ends with the test session: its input closes."""

    def __init__(self, *modules: str, path: str = "", **environment: str) -> None:
        """
        Args:
            modules: what to import, in this order.
            path: one more directory to import from.
            environment: variables, beside this process's.
        """
        env = os.environ | environment | {"PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, path]))}
        command = [sys.executable, "-m", "rank_server", *modules]
        self._process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._requests: Any = self._process.stdin
        self._answers: Any = self._process.stdout

    def run(self, function: Callable[..., Any], world: int, *args: Any, seconds: float = 120) -> list[Any]:
        """`ranks.run`, for a function of a module's top level that takes and returns what pickles.

        Raises:
            RanksFailed: a rank raised something, and so ended, or did not end in so many ``seconds``.
        """
        pickle.dump((function.__module__, function.__name__, world, args, seconds), self._requests)
        self._requests.flush()
        outcome = pickle.load(self._answers)
        if isinstance(outcome, Exception):
            raise RanksFailed({-1: str(outcome)})
        errors = {rank: str(found) for rank, found in enumerate(outcome) if isinstance(found, ranks.Left)}
        if errors:
            raise RanksFailed(errors)
        return outcome

    def close(self) -> None:
        self._requests.close()
        self._process.wait()


def _serve(modules: list[str]) -> None:
    # What is printed from here on must not come between the answers.
    answers, sys.stdout = os.fdopen(os.dup(1), "wb"), sys.stderr
    os.dup2(2, 1)
    for module in modules:
        importlib.import_module(module)
    while True:
        try:
            module, name, world, args, seconds = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            function = getattr(importlib.import_module(module), name)
            outcome: Any = ranks.outcomes(function, world, *args, seconds=seconds, leave=True)
        except (TimeoutError, RuntimeError) as error:
            outcome = error
        pickle.dump(outcome, answers)
        answers.flush()


if __name__ == "__main__":
    _serve(sys.argv[1:])
