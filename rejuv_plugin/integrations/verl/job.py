# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a verl configuration asks of us, checked against what verl can do with it."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ...config import RejuvenationConfig, from_mapping
from ...errors import InputError
from ...probe.prompts import SINGLE_TURN, Prompts
from ...tune.data import Data

MODEL_PATH = "actor_rollout_ref.model.path"
BASE_PATH = "rejuvenation.base_path"
NO_REFERENCE = ("torchtitan", "automodel")
"""Engines that load their weights from ``model_config.path``, which is the actor's. The others take
``model_config.local_path``, which `reference` sets."""


@dataclass(frozen=True)
class Job:
    """One verl job that asks for Rejuvenation."""

    settings: RejuvenationConfig
    sft_path: str
    """The user's own ``actor_rollout_ref.model.path``."""
    cache_dir: str
    prompts: Prompts
    """The job's own RL data, to calibrate on when the user gives none."""
    trains_on: str
    """verl's ``trainer.device``: ``cuda``, ``npu``, or ``cpu`` in laptop mode."""
    tunes_on: Data | None = None
    """What alpha is chosen on; None if it is given."""


def job_of(config: Any) -> Job | None:
    """Read the group ``rejuvenation`` of a verl configuration; None when the job does not ask for it.

    Reads the configuration only, no files, and changes nothing.

    Raises:
        InputError: an unknown or bad setting, or a combination with verl's own settings that would be wrong.
    """
    group = config.get("rejuvenation")
    if group is None:
        return None
    values = OmegaConf.to_container(group, resolve=True) if OmegaConf.is_config(group) else group
    settings = from_mapping(values)
    sft_path = OmegaConf.select(config, MODEL_PATH)
    if not sft_path or OmegaConf.is_missing(config.actor_rollout_ref.model, "path"):
        raise InputError(MODEL_PATH, "the SFT checkpoint", repr(sft_path), f"set {MODEL_PATH} as without the plugin")
    _refuse(config, settings)
    if settings.tokenizes:
        _refuse_other_prompts(config, str(sft_path))
    if settings.mode == "worker":
        from .worker_mode.refuse import refuse

        refuse(config, settings, _engines_of(settings), _uses_lora(config))
    given = settings.cache_dir
    cache_dir = os.path.abspath(os.path.expanduser(given)) if given else str(run_directory(config) / "rejuvenated")
    prompts = _prompts(config)
    return Job(
        settings,
        os.path.expanduser(str(sft_path)),
        cache_dir,
        prompts,
        str(config.trainer.get("device") or "cuda"),
        _tunes_on(config, settings, prompts) if settings.tune.enabled else None,
    )


def run_directory(config: Any) -> Path:
    """``trainer.default_local_dir``, absolute. As verl takes it: a ``~`` is a name like any other."""
    return Path(os.path.abspath(config.trainer.default_local_dir))


def _prompts(config: Any) -> Prompts:
    data = OmegaConf.select(config, "data") or {}
    files = data.get("train_files") or ()
    files = (files,) if isinstance(files, str) else tuple(map(str, files))
    template = data.get("apply_chat_template_kwargs") or {}
    return Prompts(
        files,
        data.get("prompt_key") or "prompt",
        data.get("max_prompt_length"),
        data.get("max_response_length") or 512,
        "data.train_files",
        OmegaConf.to_container(template, resolve=True) if OmegaConf.is_config(template) else template,
    )


def _tunes_on(config: Any, settings: RejuvenationConfig, prompts: Prompts) -> Data:
    """The job's own prompts, reward function and rollout settings, but for those that ``rejuvenation.tune`` has."""
    tune, alpha = settings.tune, "rejuvenation.fusion.alpha"
    if settings.mode == "worker":
        fix = "set rejuvenation.mode=disk, or choose alpha with rejuv tune"
        raise InputError(alpha, "a number, in worker mode", "'auto'", fix)
    # verl moves the second to the first, later than here.
    functions = [OmegaConf.select(config, key) for key in ("reward.custom_reward_function", "custom_reward_function")]
    function = next((f for f in functions if f and f.get("path")), None)
    if function is None and not tune.reward:
        raise InputError(
            "rejuvenation.tune.reward",
            f"FILE.py:FUNCTION, to score answers with, for {alpha}=auto",
            "none, and no reward.custom_reward_function.path",
            f"set one of the two, or {alpha} to a number",
        )
    rollout = OmegaConf.select(config, "actor_rollout_ref.rollout") or {}
    # Asked otherwise, or scored without its tools or its reward model, a policy earns something else than in training.
    asked_otherwise = {
        "actor_rollout_ref.rollout.multi_turn.enable": (False, tune.data),
        "actor_rollout_ref.rollout.agent.default_agent_loop": (SINGLE_TURN, tune.data),
        "data.custom_cls.path": (None, tune.data),
        "reward.reward_model.enable": (False, tune.reward),
    }
    for key, (plain, stands_in) in asked_otherwise.items():
        value = OmegaConf.select(config, key)
        if value not in (None, plain) and not stands_in:
            got = "'auto', which scores single answers to the rows' own prompts by a file"
            fix = "give rejuvenation.tune.data and rejuvenation.tune.reward that stand in for it, or a number"
            raise InputError(alpha, f"a number, with {key}={'true' if value is True else value}", got, fix)
    own = {} if tune.reward or function is None else dict(function.get("reward_kwargs") or {})
    if tune.data:
        prompts = replace(prompts, files=(tune.data,), key="rejuvenation.tune.data")
    return Data(
        replace(prompts, max_response=tune.max_response or prompts.max_response),
        tune.reward or f"{function['path']}:{function.get('name') or 'compute_score'}",
        tune.group or rollout.get("n") or 1,
        tune.temperature or rollout.get("temperature") or 1.0,
        own,
    )


def _engines_of(settings: RejuvenationConfig) -> list[str]:
    """The keys of the engines that may start rejuvenated: actor, reference, and the critic on request."""
    return ["actor_rollout_ref.actor", "actor_rollout_ref.ref", *(["critic"] if settings.critic else [])]


def _refuse(config: Any, settings: RejuvenationConfig) -> None:
    if not OmegaConf.select(config, "trainer.use_v1", default=True):
        raise InputError(
            "trainer.use_v1", "true", "false", "remove the override: the legacy trainer would ignore rejuvenation"
        )
    for engine in _engines_of(settings):
        key = f"{engine}.megatron.use_dist_checkpointing"
        if OmegaConf.select(config, key, default=False):
            raise InputError(
                key,
                "false",
                "true: Megatron would load weights from dist_checkpointing_path, past the rejuvenated ones",
                f"set {key}=false",
            )
    if settings.ref == "sft" and _uses_lora(config):
        raise InputError(
            "rejuvenation.ref",
            "rejuvenated, as the actor has a LoRA adapter and its reference is the actor without it",
            "'sft'",
            "set rejuvenation.ref=rejuvenated or train without LoRA",
        )
    strategy = OmegaConf.select(config, "actor_rollout_ref.ref.strategy")
    if settings.ref == "sft" and strategy in NO_REFERENCE:
        raise InputError(
            "rejuvenation.ref",
            f"rejuvenated, with actor_rollout_ref.ref.strategy={strategy}, whose engine would load the actor's start",
            "'sft'",
            "set rejuvenation.ref=rejuvenated, or another strategy",
        )


def _refuse_other_prompts(config: Any, sft_path: str) -> None:
    """The plugin's own prompts are rendered as the SFT checkpoint says; verl's would then be others."""
    for name in ("tokenizer_path", "custom_chat_template"):
        key = f"actor_rollout_ref.model.{name}"
        value = OmegaConf.select(config, key)
        if value is not None and not _same_path(str(value), sft_path):
            raise InputError(
                key,
                "null, with alpha=auto, a reset ratio or a probe set: their prompts are the SFT checkpoint's",
                repr(value)[:80],
                f"save tokenizer and chat template in the directory of {MODEL_PATH}",
            )


def _same_path(one: str, other: str) -> bool:
    return os.path.realpath(os.path.expanduser(one)) == os.path.realpath(os.path.expanduser(other))


def _uses_lora(config: Any) -> bool:
    """verl's own test (PPOTrainer._setup): when it holds, the reference policy is the actor minus its adapter."""
    model = config.actor_rollout_ref.model
    rank = OmegaConf.select(model, "lora.rank", default=0) or OmegaConf.select(model, "lora_rank", default=0)
    return rank > 0 or OmegaConf.select(model, "lora_adapter_path") is not None
