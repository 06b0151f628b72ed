# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The weights that are trained, as one rank has them, by engine; and how to let the model read others for a while."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor

from ....errors import InputError
from ..engine import is_megatron
from .fsdp_reset import reset_fsdp1, reset_fsdp2
from .optimizers import distributed_optimizers


@dataclass(frozen=True)
class Shard:
    """Of one tensor. Both share memory with the engine; loading and offloading may replace them."""

    read: Tensor
    """What the model's forward is made from."""
    master: Tensor | None = None
    """What the optimizer updates, of the same shape, and then rounds to `read`; None: `read` itself. It may be
    offloaded when `read` is not."""

    @property
    def held(self) -> Tensor:
        """What an update changes."""
        return self.read if self.master is None else self.master


def shards(engine: Any) -> list[Shard]:
    """This rank's part of every trained tensor, in an order that does not change. To be called in a mode of the engine,
    not between a forward and its backward: under FSDP, whole tensors that were gathered are dropped.

    Raises:
        InputError: an engine that has weights in yet another form.
    """
    if is_megatron(engine):
        return list(_of_megatron(engine))
    if getattr(engine, "_qat_enabled", False):
        raise _refused(
            "actor_rollout_ref.actor.fsdp_config.qat.enable", "false", "true, whose scales go by the weights"
        )
    drop_gathered(engine)
    if isinstance(engine.module, FullyShardedDataParallel):
        flat = [handle.flat_param for handle in engine.module._all_handles]
        return [Shard(parameter.data) for parameter in flat if parameter.requires_grad]
    trained = [parameter.detach() for parameter in engine.module.parameters() if parameter.requires_grad]
    return [Shard(tensor.to_local() if isinstance(tensor, DTensor) else tensor) for tensor in trained]


def renew(engine: Any) -> None:
    """Let the next forward read what `Shard.read` holds now. A collective, to be called in a mode of the engine."""
    if not is_megatron(engine):
        drop_gathered(engine)
        return
    for chunk in engine.module:
        chunk.start_param_sync(force_sync=True)


def recover(engine: Any) -> None:
    """Let weights be read, written and trained after a forward or backward pass that raised half way. Its gradients go.

    Raises:
        AttributeError, RuntimeError: a version of torch that `fsdp_reset` does not know; whole tensors may be left that
            are not those of the shards.
    """
    if is_megatron(engine):
        return
    if isinstance(engine.module, FullyShardedDataParallel):
        reset_fsdp1(engine.module)
    elif isinstance(engine.module, FSDPModule):
        reset_fsdp2(engine.module)
    drop_gathered(engine)


def drop_gathered(engine: Any) -> None:
    """Of FSDP: a root keeps whole tensors after a forward that no backward follows, and the next forward would take
    those."""
    if is_megatron(engine):
        return
    if isinstance(engine.module, FullyShardedDataParallel):
        for handle in engine.module._all_handles:
            handle.reshard(handle.uses_sharded_strategy)
    else:
        for module in engine.module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def _of_megatron(engine: Any) -> Iterator[Shard]:
    optimizers = list(distributed_optimizers(engine, "sharpness"))
    if any(chunk.ddp_config.overlap_param_gather for chunk in engine.module):
        # Then a forward gathers by itself, now and then.
        key = "actor_rollout_ref.actor.megatron.override_ddp_config.overlap_param_gather"
        raise _refused(key, "false", "true")
    for optimizer in optimizers:
        halves = _pairs(optimizer, "model_float16_groups", "shard_fp32_from_float16_groups")
        for parameter, master in (*halves, *_pairs(optimizer, "model_fp32_groups")):
            mine = optimizer._get_model_param_range_map(parameter)["param"]
            yield Shard(parameter.detach().view(-1)[mine.start : mine.end], master)


def _pairs(optimizer: Any, models: str, masters: str = "") -> Iterator[tuple[Any, Any]]:
    """Parameters of the model in 16 bits and what the optimizer updates for them, or, those in 32 bits, None."""
    for number, group in enumerate(getattr(optimizer, models, ())):
        for at, parameter in enumerate(group):
            master = getattr(optimizer, masters)[number][at] if masters else None
            if masters and master is None:
                key = "actor_rollout_ref.actor.optim.override_optimizer_config.use_precision_aware_optimizer"
                raise _refused(key, "false", "true")
            yield parameter, master


def _refused(key: str, expected: str, got: str) -> InputError:
    switch = "rejuvenation.monitors.sharpness"
    return InputError(key, f"{expected} for the monitor of sharpness", got, f"set it to {expected}, or {switch}=false")
