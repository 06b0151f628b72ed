# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl as it was published, other versions than the environment's own, and with our patches."""

import importlib.metadata
import os
import shutil
import subprocess
from pathlib import Path

from beside import beside

PATCHES = Path(__file__).parents[2] / "patches"


def packages(version: str) -> Path:
    """The directory to put on PYTHONPATH to have this version of verl."""
    if importlib.metadata.version("verl") == version:
        return Path(str(importlib.metadata.distribution("verl").locate_file("")))
    return beside(f"verl-{version}")


def patched(version: str, directory: Path) -> Path:
    """A copy of the package in ``directory`` with all our patches of this version; a directory for PYTHONPATH."""
    shutil.copytree(packages(version) / "verl", directory / "verl", ignore=shutil.ignore_patterns("__pycache__"))
    # Without the ceiling git passes over the files in silence where the directory is in some repository.
    env = os.environ | {"GIT_CEILING_DIRECTORIES": str(directory.parent)}
    patches = sorted((PATCHES / version).glob("*.patch"))
    assert patches, f"no patches of verl {version}"
    subprocess.run(["git", "apply", *patches], cwd=directory, env=env, check=True)
    return directory
