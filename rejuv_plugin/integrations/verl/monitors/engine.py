# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What all that feeds monitors must know of verl's engine."""

from collections.abc import Iterator
from typing import Any

from ....errors import InputError


def number_of_layers(engine: Any) -> int:
    """Decoder layers of the language model, over all ranks; from its HF configuration."""
    return int(engine.model_config.hf_config.get_text_config().num_hidden_layers)


def distributed_optimizers(engine: Any, switch: str) -> Iterator[Any]:
    """megatron-core's optimizers of a Megatron engine, each of some parameters.

    Args:
        engine: verl's.
        switch: of the monitor that needs them.

    Raises:
        InputError: one that is not distributed.
    """
    for optimizer in getattr(engine.optimizer, "chained_optimizers", [engine.optimizer]):
        if not hasattr(optimizer, "_get_model_param_range_map"):
            raise InputError(
                "actor_rollout_ref.actor.megatron.use_distributed_optimizer",
                f"true for the monitor of {switch}",
                f"an optimizer that is not distributed ({type(optimizer).__name__})",
                f"set it to true, or rejuvenation.monitors.{switch}=false",
            )
        yield optimizer
