# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What ``import verl`` brings in with the plugin installed, in fresh processes as verl's workers are."""

import json
import os
import subprocess
import sys

import pytest

LIST_MODULES = "import json, sys, verl; print(json.dumps(sorted(sys.modules)))"


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def without() -> set[str]:
    return set(json.loads(run(LIST_MODULES, VERL_USE_EXTERNAL_PLUGINS="none").stdout.splitlines()[-1]))


@pytest.mark.parametrize("platform", ["cpu", "nvidia"])
def test_the_plugin_imports_only_itself(without: set[str], platform: str) -> None:
    """Every process of a job pays for what is imported here; torch, hydra, trainers and engines must wait."""
    modules = set(json.loads(run(LIST_MODULES, VERL_PLATFORM=platform).stdout.splitlines()[-1]))
    assert "rejuv_plugin.integrations.verl.plugin" in modules
    assert ("rejuv_plugin.integrations.verl.cpu.platform" in modules) == (platform == "cpu")
    assert {name for name in modules - without if not name.startswith("rejuv_plugin")} == set()


def test_ranks_of_torchrun_meet_on_the_cpu() -> None:
    """As verl's SFT trainer starts."""
    code = (
        "import torch; from verl.utils.distributed import initialize_global_process_group as start;"
        "print(start(), torch.distributed.get_world_size())"
    )
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    result = run(code, VERL_PLATFORM="cpu", **rank)
    assert result.stdout.strip().endswith("(0, 0, 1) 1"), result.stderr


def test_a_failing_entry_point_is_loud() -> None:
    """verl itself only logs at DEBUG level."""
    broken = "import sys; sys.modules['rejuv_plugin.integrations.verl.cpu.platform'] = None; import verl"
    result = run(broken, VERL_PLATFORM="cpu")
    assert "rejuv-plugin: entry point 'rejuvenation_cpu' failed" in result.stderr


def test_all_three_trainers_are_extended_under_their_own_names() -> None:
    """In this process: its verl has loaded the plugin too."""
    from verl.trainer.ppo.v1 import PPOTrainerSync, get_trainer_cls

    found = {mode: get_trainer_cls(mode) for mode in ("sync", "colocate_async", "separate_async")}
    assert {mode: [each.__name__ for each in trainer.__mro__[:3]] for mode, trainer in found.items()} == {
        "sync": ["PPOTrainerSync", "RejuvenationMixin", "PPOTrainerSync"],
        "colocate_async": ["PPOTrainerColocateAsync", "RejuvenationMixin", "PPOTrainerColocateAsync"],
        "separate_async": ["PPOTrainerSeparateAsync", "RejuvenationMixin", "PPOTrainerSeparateAsync"],
    }
    assert issubclass(found["sync"], PPOTrainerSync)


STATUS = """
import atexit, sys
atexit.register(lambda: print("loaded:", "rejuv_plugin.integrations.verl.plugin" in sys.modules))
from rejuv_plugin.cli import main
main(["status"])
"""


@pytest.mark.parametrize(("plugins", "code"), [("auto", 0), ("rejuvenation_cpu", 1)])
def test_status_says_whether_verl_loads_the_plugin(plugins: str, code: int) -> None:
    """Also that the CPU platform can be loaded alone."""
    result = run(STATUS, VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_PLUGINS=plugins)
    assert result.returncode == code, result.stderr
    assert ", device cpu, " in result.stdout
    assert f"loaded: {code == 0}" in result.stdout
    assert ("trainer sync: with rejuvenation" in result.stdout) == (code == 0)
    assert ("Fix: unset VERL_USE_EXTERNAL_PLUGINS" in result.stdout) == (code == 1)
