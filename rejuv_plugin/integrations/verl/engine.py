# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Which of verl's engines it is, and what they all answer."""

from typing import Any

from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

from ...errors import InputError


def is_megatron(engine: Any) -> bool:
    """By a method, as verl can only import its Megatron engine where megatron-core is."""
    return hasattr(engine, "_build_megatron_module")


def number_of_layers(engine: Any) -> int:
    """Decoder layers of the language model, over all ranks; from its HF configuration."""
    return int(engine.model_config.hf_config.get_text_config().num_hidden_layers)


def check_known(engine: Any) -> None:
    """Monitors know two kinds of engines: Megatron's, and FSDP's, to which those that are built on it do not belong.

    Raises:
        InputError: another one.
    """
    # VeOmni's is a subclass that shards in its own way.
    if not is_megatron(engine) and not (isinstance(engine, FSDPEngine) and hasattr(engine, "ulysses_device_mesh")):
        raise InputError(
            "actor_rollout_ref.actor.strategy",
            "fsdp, fsdp2 or megatron, for monitors in the workers",
            type(engine).__name__,
            "set rejuvenation.monitors.enabled=false, or another strategy",
        )
