# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Monitors on verl's FSDP engines on this machine's GPUs: what one whole model says, and nothing is changed.

Skipped where there is none.

The calls are those of tests/fsdp_cpu, all in one process a GPU: with verl it takes 20 seconds to start.
"""

import os
import traceback
from pathlib import Path
from typing import Any

import gpu_ranks
import probe_reference
import pytest
import rollouts
import torch
from fsdp_cpu import test_core_monitors_fsdp as core
from fsdp_cpu import test_probe_on_fsdp as probe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use"),
]

STRATEGIES = ("fsdp", "fsdp2")
SETTINGS = {"in memory": {}, "offloaded": probe.OFFLOADED}
models, core_models = probe.models, core.models


def in_turn(device: torch.device, calls: dict[tuple, tuple]) -> dict[tuple, Any]:
    """On a rank: what each call gives, or the text of its error."""
    os.environ |= {
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "VERL_DISABLE_FLASH_ATTN_CE": "1",
    }  # as verl's full_determinism
    torch.use_deterministic_algorithms(True, warn_only=True)
    found = {}
    for name, (function, *args) in calls.items():
        torch.manual_seed(0)  # dropout draws on the device
        try:
            found[name] = function(*args)
        except Exception:
            found[name] = traceback.format_exc()
    return found


@pytest.fixture(scope="module")
def found(models: dict, core_models: Path) -> dict[tuple, list]:
    """By strategy and call, what each rank gave."""
    calls: dict[tuple, tuple] = {}
    llama, (mistral, _) = core_models / "llama-biases", models["mistral"]
    for strategy in STRATEGIES:
        calls[strategy, "core"] = (core.look, llama, strategy, 0.7, {}, {})
        calls[strategy, "probe"] = (probe.look, mistral, strategy, {}, {})
        calls[strategy, "sharpness"] = (probe.step, mistral, strategy, 2, {}, {})
        for watched in (False, True):
            calls[strategy, "learn", watched] = (core.learn, llama, strategy, watched)
            calls[strategy, "train", watched] = (probe.train, mistral, strategy, {}, watched)
        for setting, config in SETTINGS.items():
            for fails in ("", "forward", "backward"):
                call = (probe.train_after_a_pass_that_fails, mistral, strategy, config, fails)
                calls[strategy, setting, fails] = call
    ranks = gpu_ranks.run(in_turn, calls)
    return {name: [rank[name] for rank in ranks] for name in calls}


def results(found: dict[tuple, list], *name: object) -> list:
    """What each rank gave; an error of any is raised here."""
    for result in found[name]:
        assert not isinstance(result, str), result
    return found[name]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_values_are_those_of_one_whole_model(found: dict, models: dict, core_models: Path, strategy: str) -> None:
    expected = rollouts.expected(core_models / "llama-biases", core.steps(), 0.7)
    for values, norms in results(found, strategy, "core"):
        assert values == {key: pytest.approx(value, rel=1e-5) for key, value in expected.items()}
        assert values["grad_norm"] == pytest.approx(core.root_mean_square(norms), rel=1e-5)
    path, reference = models["mistral"]
    for looked in results(found, strategy, "probe"):
        probe_reference.assert_equal(looked, reference, 1e-4)
    probe_reference.assert_critical(results(found, strategy, "sharpness"), path, probe.EXAMPLES, rate=1e-3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_monitors_do_not_change_a_bit(found: dict, strategy: str) -> None:
    (watched, said), (alone, _) = (results(found, strategy, "learn", watched)[0] for watched in (True, False))
    assert watched.keys() == alone.keys()
    assert [name for name, tensor in alone.items() if not torch.equal(watched[name], tensor)] == []
    assert len({step["entropy"] for step in said}) == 5, "the policy was seen to change"
    by_watched = (results(found, strategy, "train", watched) for watched in (False, True))
    probe_reference.assert_same_training(*by_watched)


@pytest.mark.parametrize("fails", ["forward", "backward"])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_training_goes_on_after_a_pass_that_failed(found: dict, strategy: str, setting: str, fails: str) -> None:
    (streamed, trained, _), *_ = results(found, strategy, setting, "")
    for *weights, failed in results(found, strategy, setting, fails):
        assert failed == ["probe", "neurons", "ranks", "attention"]
        for mine, expected in zip(weights, (streamed, trained), strict=True):
            assert [name for name, tensor in expected.items() if not torch.equal(mine[name], tensor)] == []
