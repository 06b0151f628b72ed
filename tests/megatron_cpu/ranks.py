# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Ranks that have the stand-ins, megatron-core and verl imported, while the test's own process has none of them.

They are forks of one server process that imports once, when the first of them is asked for: python's own forkserver.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ranks

# Where constraints/install.sh puts megatron-core and the bridges.
_PACKAGES = Path(sys.prefix, "megatron")
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["megatron_cpu.engines", "pytest"])


def installed() -> bool:
    return (_PACKAGES / "megatron").is_dir() or find_spec("megatron") is not None


def run(function: Callable[..., Any], world: int, *args: Any, timeout: float = 120) -> list[Any]:
    """`ranks.run`, for a function of a module's top level that takes and returns what pickles."""
    # Python 3.11 does not tell the server of the tests' sys.path.
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join([*sys.path, str(_PACKAGES)])):
        forkserver.ensure_running()
    return ranks.run(_call, world, function, *args, timeout=timeout, context=_SERVER)


def _call(function: Callable[..., Any], *args: Any) -> Any:
    sys.path.append(str(_PACKAGES))  # a rank gets the path of the test's process
    return function(*args)
