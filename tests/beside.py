# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Packages of ``constraints/beside.txt``: installed beside the environment, found only where a test puts them."""

import sys
from pathlib import Path

import pytest


def beside(package: str) -> Path:
    """The directory to put on PYTHONPATH to have ``<name>-<version>``; skips the test where it was not installed."""
    directory = Path(sys.prefix, "beside", package)
    if not directory.is_dir():
        pytest.skip(f"{package} is not installed beside the environment: bash tests/run.sh does that")
    return directory
