# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a verl configuration may ask for, and the one line it gets otherwise."""

import math
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from rejuv_plugin.config import RejuvenationConfig, defaults
from rejuv_plugin.errors import InputError
from rejuv_plugin.integrations.verl import tripwire
from rejuv_plugin.integrations.verl.job import job_of

WORKER = {"base_path": "b", "mode": "worker"}
FROM_ACTOR = "${actor_rollout_ref.actor.strategy}"


def config_with(rejuvenation: Any, **dotted: Any) -> Any:
    config = OmegaConf.create(
        {
            "trainer": {"use_v1": True, "default_local_dir": "runs/a"},
            "actor_rollout_ref": {
                "model": {"path": "sft", "external_lib": None, "lora_rank": 0},
                "actor": {"megatron": {"use_dist_checkpointing": False}},
                "ref": {"megatron": {"use_dist_checkpointing": False}},
            },
            "critic": {"megatron": {"use_dist_checkpointing": False}},
        }
    )
    if rejuvenation is not None:
        config.rejuvenation = rejuvenation
    for key, value in dotted.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    return config


def test_no_group_is_no_job() -> None:
    assert job_of(config_with(None)) is None


def test_worker_mode_goes_with_every_engine_it_knows() -> None:
    for strategy in ("fsdp", "fsdp2", "megatron"):
        engines = {f"actor_rollout_ref__{role}__strategy": strategy for role in ("actor", "ref")}
        job = job_of(config_with(WORKER | {"critic": True}, **engines, critic__strategy=strategy))
        assert job is not None
    # Only an engine that loads rejuvenated weights has to be one of them.
    assert job_of(config_with(WORKER, critic__strategy="veomni")) is not None


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2", "megatron", "veomni", "torchtitan"])
def test_the_sft_checkpoint_as_reference_goes_with_engines_that_can_be_told(strategy: str) -> None:
    """And the actor's own start with any."""
    for ref in ["rejuvenated"] if strategy == "torchtitan" else ["rejuvenated", "sft"]:
        assert job_of(config_with({"base_path": "b", "ref": ref}, actor_rollout_ref__ref__strategy=strategy))


@pytest.mark.parametrize(
    "group",
    [
        {"fusion": {"alpha": 0.4}, "reset": {"omega": 1}},
        {"reset": {"ratio": 0.01, "omega": 0.5, "positions": 4, "device": "cpu"}},
        {"reset": {"set_path": "s", "omega": 0.5}},
        {"reset": {"seed": 1, "device": "cpu"}, "tune": {"seed": 1}, "fusion": {"noise_seed": 1}},
        {"reset": {"set_path": "s", "seed": 1, "device": "cpu"}},
    ],
)
def test_settings_that_mean_something_pass(group: dict) -> None:
    assert job_of(config_with({"base_path": "b"} | group))


def test_the_sft_checkpoints_own_tokenizer_passes(tmp_path: Path) -> None:
    settings = {"base_path": "b", "reset": {"ratio": 0.01}}
    where = {
        "actor_rollout_ref__model__path": str(tmp_path),
        "actor_rollout_ref__model__tokenizer_path": f"{tmp_path}/",
    }
    assert job_of(config_with(settings, **where))


def test_another_chat_template_passes_where_nothing_is_tokenized() -> None:
    assert job_of(config_with({"base_path": "b"}, actor_rollout_ref__model__custom_chat_template="{{ messages }}"))


def test_patterns_pass_hydra_s_grammar_without_quotes() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    given = "model.layers.2?.*:0.3 *.k_proj.*:0.2"
    override = OverridesParser.create().parse_override(f"rejuvenation.fusion.alpha_of={given}")
    job = job_of(config_with({"base_path": "base", "fusion": {"alpha_of": override.value()}}))
    assert job is not None
    assert job.settings.fusion.alphas == (("model.layers.2?.*", 0.3), ("*.k_proj.*", 0.2))


def test_the_group_as_hydra_stores_it() -> None:
    job = job_of(config_with({**defaults(), "base_path": "base"}))
    assert job is not None
    assert job.settings == RejuvenationConfig(base_path="base")
    assert job.cache_dir.endswith("/runs/a/rejuvenated")


@pytest.mark.parametrize(
    ("rejuvenation", "dotted", "key", "part"),
    [
        ({}, {}, "rejuvenation.base_path", "Fix: set rejuvenation.base_path"),
        ("default", {}, "rejuvenation", "+rejuvenation=default"),
        ({"base_path": "b", "fusion": {"alpha": 1.5}}, {}, "rejuvenation.fusion.alpha", "[0, 1]"),
        ({"base_path": "b", "fusion": {"alpha": float("nan")}}, {}, "rejuvenation.fusion.alpha", "nan"),
        ({"base_path": "b", "fusion": {"alpha": "half"}}, {}, "rejuvenation.fusion.alpha", "'half'"),
        ({"base_path": "b", "fusion": {"alpha_of": "*.k_proj.*"}}, {}, "rejuvenation.fusion.alpha_of", "PATTERN:ALPHA"),
        ({"base_path": "b", "fusion": {"noise": -1}}, {}, "rejuvenation.fusion.noise", "at least 0"),
        ({**WORKER, "fusion": {"method": "ties"}}, {}, "rejuvenation.fusion.method", "mode=disk"),
        ({"base_path": "b", "fusion": {"alhpa": 0.5}}, {}, "rejuvenation.fusion.alhpa", "did you mean"),
        ({"base_path": "b", "alpha": 0.5}, {}, "rejuvenation.alpha", "unknown key"),
        ({"base_path": "b", "monitors": {"pass_score": math.nan}}, {}, "rejuvenation.monitors.pass_score", "finite"),
        ({"base_path": "b", "reset": {"ratio": 1.5}}, {}, "rejuvenation.reset.ratio", "[0, 1]"),
        ({"base_path": "b", "reset": {"ratio": True}}, {}, "rejuvenation.reset.ratio", "expected float, got True"),
        ({"base_path": "b", "tune": {"step": True}}, {}, "rejuvenation.tune.step", "expected float, got True"),
        ({"base_path": "b", "monitors": {"sample": True}}, {}, "rejuvenation.monitors.sample", "expected int"),
        ({"base_path": "b", "reset": {"omega": 0.5}}, {}, "rejuvenation.reset.omega", "1.0, without a reset, got 0.5"),
        ({"base_path": "b", "reset": {"cap": 0.1}}, {}, "rejuvenation.reset.cap", "set a ratio or a set"),
        (
            {"base_path": "b", "fusion": {"density": 0.3}},
            {},
            "rejuvenation.fusion.density",
            "0.2, with method linear, got",
        ),
        (
            {"base_path": "b", "reset": {"ratio": 0.1, "calibration": "c.jsonl", "examples": 8}},
            {},
            "rejuvenation.reset.examples",
            "64, with calibration data, which are all used, got 8",
        ),
        (
            {"base_path": "b", "reset": {"set_path": "s", "omega": 0.5, "positions": 4}},
            {},
            "rejuvenation.reset.positions",
            "8, with a set, which was selected already, got 4",
        ),
        (
            {"base_path": "b", "tune": {"alphas": "0.3,0.5"}},
            {},
            "rejuvenation.tune.alphas",
            "Fix: remove it, or set rejuvenation.fusion.alpha=auto",
        ),
        (
            {"base_path": "b", "fusion": {"alpha": 0.4}, "tune": {"enabled": True}},
            {},
            "rejuvenation.fusion.alpha",
            "expected auto, with rejuvenation.tune.enabled=true, got 0.4",
        ),
        ({"base_path": "b", "reset": {"calibration": "c"}}, {}, "rejuvenation.reset.ratio", "above 0"),
        ({"base_path": "b", "reset": {"omega": -1}}, {}, "rejuvenation.reset.omega", "[0, 1]"),
        ({"base_path": "b", "reset": {"positions": 1.5}}, {}, "rejuvenation.reset.positions", "int"),
        ({"base_path": "b", "reset": {"rule": "both"}}, {}, "rejuvenation.reset.rule", "union"),
        ({"base_path": "b", "reset": {"rato": 0.01}}, {}, "rejuvenation.reset.rato", "did you mean"),
        ({"base_path": "b", "ref": "base"}, {}, "rejuvenation.ref", "rejuvenated or sft"),
        ({"base_path": "b", "mode": "memory"}, {}, "rejuvenation.mode", "disk or worker"),
        ({**WORKER}, {"actor_rollout_ref__actor__strategy": "veomni"}, "actor_rollout_ref.actor.strategy", "mode=disk"),
        ({**WORKER}, {"actor_rollout_ref__ref__strategy": "torchtitan"}, "actor_rollout_ref.ref.strategy", "fsdp2"),
        ({**WORKER, "critic": True}, {"critic__strategy": "veomni"}, "critic.strategy", "megatron"),
        ({**WORKER}, {"actor_rollout_ref__model__lora_rank": 8}, "rejuvenation.mode", "LoRA"),
        ({**WORKER}, {"actor_rollout_ref__model__lora__rank": 8}, "rejuvenation.mode", "LoRA"),
        ({**WORKER, "reset": {"ratio": 0.01}}, {}, "rejuvenation.reset.calibration", "rejuv calibrate"),
        (
            {**WORKER, "reset": {"ratio": 0.01, "calibration": "c", "device": "cpu"}},
            {},
            "rejuvenation.reset.device",
            "devices that train",
        ),
        (
            {**WORKER},
            {"actor_rollout_ref__actor__megatron__use_dist_checkpointing": True},
            "actor_rollout_ref.actor.megatron.use_dist_checkpointing",
            "=false",
        ),
        ({"base_path": 3}, {}, "rejuvenation.base_path", "str or null"),
        ({"base_path": "b"}, {"trainer__use_v1": False}, "trainer.use_v1", "legacy"),
        (
            {"base_path": "b"},
            {"actor_rollout_ref__actor__megatron__use_dist_checkpointing": True},
            "actor_rollout_ref.actor.megatron.use_dist_checkpointing",
            "=false",
        ),
        (
            {"base_path": "b", "critic": True},
            {"critic__megatron__use_dist_checkpointing": True},
            "critic.megatron.use_dist_checkpointing",
            "=false",
        ),
        ({"base_path": "b", "ref": "sft"}, {"actor_rollout_ref__model__lora_rank": 8}, "rejuvenation.ref", "LoRA"),
        (
            {"base_path": "b", "ref": "sft"},
            {"actor_rollout_ref__ref__strategy": "torchtitan"},
            "rejuvenation.ref",
            "actor_rollout_ref.ref.strategy=torchtitan",
        ),
        (
            {"base_path": "b", "ref": "sft"},
            {"actor_rollout_ref__actor__strategy": "automodel", "actor_rollout_ref__ref__strategy": FROM_ACTOR},
            "rejuvenation.ref",
            "strategy=automodel",
        ),
        (
            {"base_path": "b", "reset": {"ratio": 0.01}},
            {"actor_rollout_ref__model__custom_chat_template": "{{ messages }}"},
            "actor_rollout_ref.model.custom_chat_template",
            "Fix: save tokenizer and chat template in the directory of actor_rollout_ref.model.path",
        ),
        (
            {"base_path": "b", "monitors": {"probe_set": {"data": "p.jsonl"}}},
            {"actor_rollout_ref__model__tokenizer_path": "elsewhere"},
            "actor_rollout_ref.model.tokenizer_path",
            "got 'elsewhere'",
        ),
        ({"base_path": "b"}, {"actor_rollout_ref__model__path": "???"}, "actor_rollout_ref.model.path", "SFT"),
    ],
)
def test_bad_settings_name_the_key_and_the_fix(rejuvenation: Any, dotted: dict, key: str, part: str) -> None:
    with pytest.raises(InputError) as error:
        job_of(config_with(rejuvenation, **dotted))
    assert error.value.key == key
    assert part in str(error.value)
    assert " Fix: " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("own", [None, "their_lib", ["one", "two"]])
def test_the_tripwire_leaves_no_trace(own: Any) -> None:
    config = config_with(None, actor_rollout_ref__model__external_lib=own)
    tripwire.arm(config)
    libs = config.actor_rollout_ref.model.external_lib
    assert libs[0] == "rejuv_plugin.integrations.verl.tripped"
    tripwire.arm(config)
    assert config.actor_rollout_ref.model.external_lib == libs
    tripwire.disarm(config)
    assert config.actor_rollout_ref.model.external_lib == own


def test_the_tripwire_trips() -> None:
    """verl imports ``external_lib`` before it reads a model; a trainer without our mixin never disarms it."""
    from verl.utils.import_utils import import_external_libs

    config = config_with(None)
    tripwire.arm(config)
    with pytest.raises(ImportError, match="plain trainer"):
        import_external_libs(list(config.actor_rollout_ref.model.external_lib))
