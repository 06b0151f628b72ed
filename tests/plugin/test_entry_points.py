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


def test_the_cpu_platform_can_be_loaded_alone() -> None:
    code = (
        "import verl; from verl.utils.device import get_device_name; import sys;"
        "print(get_device_name(), 'rejuv_plugin.integrations.verl.plugin' in sys.modules)"
    )
    result = run(code, VERL_USE_EXTERNAL_PLUGINS="rejuvenation_cpu", VERL_PLATFORM="cpu")
    assert result.stdout.split() == ["cpu", "False"], result.stderr


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


TRAINERS = """
import verl
from verl.trainer.ppo.v1 import PPOTrainerSync, get_trainer_cls
for mode in ("sync", "colocate_async", "separate_async"):
    cls = get_trainer_cls(mode)
    print(mode, cls.__name__, [c.__name__ for c in cls.__mro__[1:3]])
assert issubclass(get_trainer_cls("sync"), PPOTrainerSync)
"""


def test_all_three_trainers_are_extended_under_their_own_names() -> None:
    lines = run(TRAINERS, VERL_PLATFORM="cpu").stdout.strip().splitlines()[-3:]
    assert lines == [
        "sync PPOTrainerSync ['RejuvenationMixin', 'PPOTrainerSync']",
        "colocate_async PPOTrainerColocateAsync ['RejuvenationMixin', 'PPOTrainerColocateAsync']",
        "separate_async PPOTrainerSeparateAsync ['RejuvenationMixin', 'PPOTrainerSeparateAsync']",
    ]


@pytest.mark.parametrize(("plugins", "code"), [("auto", 0), ("rejuvenation_cpu", 1)])
def test_status_says_whether_verl_loads_the_plugin(plugins: str, code: int) -> None:
    command = "from rejuv_plugin.cli import main; main(['status'])"
    result = run(command, VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_PLUGINS=plugins)
    assert result.returncode == code, result.stderr
    assert ("trainer sync: with rejuvenation" in result.stdout) == (code == 0)
    assert ("Fix: unset VERL_USE_EXTERNAL_PLUGINS" in result.stdout) == (code == 1)
