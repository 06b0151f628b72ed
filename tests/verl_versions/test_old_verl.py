# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl 0.8: a plugin that is asked for there says what to do instead, and is never there in silence."""

import os
import subprocess
import sys
from pathlib import Path

from verl_versions.published import packages

ROOT = Path(__file__).parents[2]


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | environment | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(packages("0.8.0"))])}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_a_job_that_names_the_plugin_ends_before_it_begins() -> None:
    plugin = "rejuv_plugin.integrations.verl.plugin"
    result = run("import verl.trainer.main_ppo", VERL_USE_EXTERNAL_MODULES=plugin)
    assert result.returncode != 0
    assert "verl: expected 0.9 or newer, got 0.8.0" in result.stderr
    assert "run `rejuv apply`" in result.stderr


def test_status() -> None:
    result = run("from rejuv_plugin.cli import main; main(['status'])")
    assert result.returncode == 1, result.stderr
    assert "verl 0.8.0: its trainers cannot be extended. Fix: verl 0.9, or `rejuv apply`" in result.stdout
