# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Packages that constraints/install.sh puts beside the environment: found only where a test puts them."""

import sys
from pathlib import Path

import pytest


def beside(package: str) -> Path:
    """The directory to put on PYTHONPATH to have ``package``, as install.sh names it; skips the test without it."""
    directory = Path(sys.prefix, "beside", package)
    if not directory.is_dir():
        pytest.skip(
            f"{package} is not installed beside the environment: bash tests/run.sh does that", allow_module_level=True
        )
    return directory
