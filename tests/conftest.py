# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Makes the helpers beside the tests importable (``import tiny``, ``from verl_jobs.job import Job``); orders tests."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
JOBS = ROOT / "verl_jobs"
STRESS = ROOT / "unit" / "test_stress.py"

SHARED = {"without_plugin"}
"""Fixtures of a module of verl jobs that take as long as a job."""

sys.path.insert(0, str(ROOT))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For the streams of ``tests/run.sh``: long tests first, and what shares a module's fixture stays in one stream.

    A verl job is a piece of its own, unless it is compared with the module's; other tests stay with their file.
    """
    items.sort(key=lambda item: (item.path.parent != JOBS, item.path != STRESS))
    for item in items:
        if item.path.parent == JOBS:
            item.add_marker(pytest.mark.verl_job)
        alone = item.path == STRESS or (item.path.parent == JOBS and not SHARED & set(item.fixturenames))
        if not alone:
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(ROOT))))
