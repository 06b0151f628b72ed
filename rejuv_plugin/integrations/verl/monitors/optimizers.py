# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""megatron-core's distributed optimizers, for monitors of what they shard."""

from collections.abc import Iterator
from typing import Any

from ....errors import InputError


def distributed_optimizers(engine: Any, switch: str) -> Iterator[Any]:
    """megatron-core's optimizers of a Megatron engine, each of some parameters.

    Args:
        engine: verl's.
        switch: of the monitor that needs them.

    Raises:
        InputError: one that is not distributed, or that keeps its parameters in another way.
    """
    for optimizer in getattr(engine.optimizer, "chained_optimizers", [engine.optimizer]):
        if not hasattr(optimizer, "_get_model_param_range_map"):
            raise _refused(
                "use_distributed_optimizer",
                switch,
                "true",
                f"an optimizer that is not distributed ({type(optimizer).__name__})",
            )
        # megatron-core leaves the groups out for Megatron-FSDP, and for a stub, which has no parameters.
        fsdp = getattr(getattr(optimizer, "ddp_config", None), "use_megatron_fsdp", False)
        stub = getattr(optimizer, "is_stub_optimizer", False)
        if fsdp or not (stub or hasattr(optimizer, "model_float16_groups")):
            got = "true" if fsdp else f"an optimizer without its groups of parameters ({type(optimizer).__name__})"
            raise _refused("use_megatron_fsdp", switch, "false", got)
        yield optimizer


def _refused(setting: str, switch: str, expected: str, got: str) -> InputError:
    return InputError(
        f"actor_rollout_ref.actor.megatron.{setting}",
        f"{expected} for the monitor of {switch}",
        got,
        f"set it to {expected}, or rejuvenation.monitors.{switch}=false",
    )
