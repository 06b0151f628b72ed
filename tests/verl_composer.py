# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A process that imports verl once, and composes the configurations of many of its commands without starting them."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

DECORATOR = re.compile(r'^@hydra\.main\(config_path="(\w+)", config_name="(\w+)"', re.MULTILINE)


class Refused(Exception):
    """What Hydra says of an argument that does not fit the command's configuration."""


class Composer:
    def __init__(self, **environment: str) -> None:
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(
            command, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, module: str, overrides: list[str]) -> DictConfig:
        """What ``python -m module *overrides --cfg job`` prints.

        Raises:
            Refused: an override names a key that verl does not have, or cannot be read.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([module, overrides]), file=self._process.stdin, flush=True)
        found = json.loads(self._process.stdout.readline())
        if "refused" in found:
            raise Refused(found["refused"])
        return OmegaConf.create(found["config"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _serve() -> None:
    # What verl prints must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    import verl  # noqa: F401 - first, as `python -m` does: it loads the plugins, which add to Hydra's groups
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    for line in sys.stdin:
        module, overrides = json.loads(line)
        # Read, not imported: the trainers take longer to import than everything here.
        source = Path(str(getattr(find_spec(module), "origin", None)))
        found = DECORATOR.search(source.read_text())
        assert found is not None, f"{source}: no @hydra.main with a directory and a name"
        directory, name = found.groups()
        try:
            with initialize_config_dir(str(source.parent / directory), version_base=None):
                answer = {"config": OmegaConf.to_yaml(compose(name, overrides))}
        except HydraException as error:
            answer = {"refused": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
