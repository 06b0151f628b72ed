# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Makes the helpers beside the tests importable (``import tiny``, ``from verl_jobs.job import Job``); orders tests."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
JOBS = ROOT / "verl_jobs"
# Of other tests those that take long.
LONG = (ROOT / "verl_versions", ROOT / "unit" / "test_stress.py")

sys.path.insert(0, str(ROOT))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that both streams of ``tests/run.sh`` end at the same time."""
    items.sort(key=lambda item: (item.path.parent != JOBS, not {item.path, item.path.parent} & set(LONG)))
    for item in items:
        if item.path.parent == JOBS:
            item.add_marker(pytest.mark.verl_job)
