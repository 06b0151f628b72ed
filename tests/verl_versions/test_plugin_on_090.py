# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The plugin's own tests with the published verl 0.9.0: those that start no Ray, and few processes."""

import os
import subprocess
import sys
from pathlib import Path

from verl_versions.published import packages

ROOT = Path(__file__).parents[2]
FILES = [
    "test_driver_check", "test_import_hook", "test_job", "test_monitor_watch", "test_monitor_catalogue",
    "test_run_record", "test_other_trainers", "test_worker_start", "test_entry_points",
]  # fmt: skip
# Of test_entry_points what starts no process.
EXPRESSION = "not test_entry_points or all_three_trainers"
FOUND = "from importlib import metadata, util; print(metadata.version('verl'), util.find_spec('verl').origin)"


def test_they_pass() -> None:
    verl = packages("0.9.0")
    path = filter(None, [str(ROOT), str(verl), os.environ.get("PYTHONPATH")])
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    found = subprocess.run([sys.executable, "-c", FOUND], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["0.9.0", f"{verl}/verl/__init__.py"]
    files = [f"tests/plugin/{name}.py" for name in FILES]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", EXPRESSION, *files]
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stdout[-6000:]
