# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A process that imports verl on the laptop's platform once, and runs functions on ranks that it forks."""

import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import ranks


class Server:
    """Ends with the pytest session: its input closes."""

    def __init__(self) -> None:
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "VERL_PLATFORM": "cpu",
            "VERL_USE_EXTERNAL_PLUGINS": "rejuvenation_cpu",
        }
        command = [sys.executable, "-m", "fsdp_cpu.server"]
        self._process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._requests: Any = self._process.stdin
        self._answers: Any = self._process.stdout

    def run(self, function: Callable[..., Any], world: int, *args: Any) -> list[Any]:
        """`ranks.run`, for a function of a module's top level that takes and returns what pickles."""
        pickle.dump((function.__module__, function.__name__, world, args), self._requests)
        self._requests.flush()
        outcome = pickle.load(self._answers)
        if isinstance(outcome, ranks.RanksFailed):
            raise outcome
        return outcome

    def close(self) -> None:
        self._requests.close()
        self._process.wait()


def _serve() -> None:
    import fsdp_cpu.engines  # noqa: F401  (what all ranks need)

    # What verl and its engines print must not come between the answers.
    answers, sys.stdout = os.fdopen(os.dup(1), "wb"), sys.stderr
    os.dup2(2, 1)
    while True:
        try:
            module, name, world, args = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            outcome: Any = ranks.run(getattr(importlib.import_module(module), name), world, *args)
        except ranks.RanksFailed as failed:
            outcome = failed
        pickle.dump(outcome, answers)
        answers.flush()


if __name__ == "__main__":
    _serve()
