# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A little of tests/stress on every change; its full size is for whoever changes how files are read or written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rejuv_plugin

ROOT = Path(rejuv_plugin.__file__).parents[1]


@pytest.mark.parametrize(
    "command", ["kill_and_fill.py --kills 8 --full 5 --seed 1", "fuzz_inputs.py --inputs 100 --seed 1"], ids=str
)
def test_all_is_as_it_should_be(tmp_path: Path, command: str) -> None:
    script, *options = command.split()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "stress" / script), *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all as it should be\n")
