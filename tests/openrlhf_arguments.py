# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""OpenRLHF's own command up to where it takes devices: prints as JSON what it would train with.

Called as python is for OpenRLHF: ``python openrlhf_arguments.py -m openrlhf.cli.train_ppo_ray --actor...``. Its parser
and its checks of the arguments run; stand-ins take the place of the modules that import DeepSpeed and vLLM.
"""

import json
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

NEEDS_CUDA = ["openrlhf.trainer", "openrlhf.trainer.ray"]
NEEDS_CUDA += [f"openrlhf.trainer.ray.{module}" for module in ("launcher", "ppo_actor", "ppo_critic")]


def show(args: SimpleNamespace) -> None:
    print(json.dumps(args, default=vars))
    sys.exit(0)


def main(flag: str, module: str) -> None:
    assert flag == "-m"
    sys.modules.update(dict.fromkeys(["ray", "ray.util", "ray.util.placement_group", *NEEDS_CUDA], mock.MagicMock()))
    spec = find_spec("openrlhf")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    # The package imports DeepSpeed, its module that sorts the arguments does not.
    utils = ModuleType("openrlhf.utils")
    utils.__path__ = [str(Path(spec.submodule_search_locations[0], "utils"))]
    # What training asks first, with all arguments.
    utils.get_strategy = show  # type: ignore[attr-defined]
    sys.modules["openrlhf.utils"] = utils
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.argv = ["train_ppo_ray", *arguments[2:]]
    main(*arguments[:2])
