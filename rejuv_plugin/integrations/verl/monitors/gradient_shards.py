# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Which part of which gradient a rank has that no other rank counts, by engine."""

import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor

from ....errors import InputError
from ..engine import is_megatron
from .optimizers import distributed_optimizers

Gradients = Iterator[tuple[str, Tensor]]
_MCORE_LAYER = re.compile(r"(.*\bdecoder\.layers\.)(\d+)(\..*)")


def owned(engine: Any) -> Gradients:
    """Names, as `monitors.gradients.place` takes them, and local gradients; together over all ranks of the engine each
    element of the gradient once. To be called between the last backward and ``optimizer_step``."""
    if is_megatron(engine):
        return _of_megatron(engine)
    if isinstance(engine.module, FullyShardedDataParallel):
        return _of_fsdp1(engine)
    return _of_fsdp2(engine)


def scale_of(engine: Any) -> float | Tensor:
    """What the loss was multiplied with, which verl undoes inside of ``optimizer_step``: 1 but for float16."""
    if is_megatron(engine):
        return engine.optimizer.get_loss_scale()
    scaler = getattr(engine, "scaler", None)
    return scaler.get_scale() if scaler else 1.0


def _of_fsdp1(engine: Any) -> Gradients:
    mesh = engine.device_mesh
    if mesh.ndim == 2 and mesh.get_coordinate()[0]:
        return  # a replica
    for prefix, module in engine.module.named_modules():
        handle = getattr(module, "_handle", None) if isinstance(module, FullyShardedDataParallel) else None
        if handle is None:
            continue
        flat = handle.flat_param
        names = [f"{prefix}.{name}" for name in flat._fqns]
        if flat._params is not None:  # use_orig_params: views of the shard, by parameter
            yield from ((n, p.grad) for n, p in zip(names, flat._params, strict=True) if p.grad is not None)
        elif flat.grad is not None:
            for name, info in zip(names, flat._shard_param_infos, strict=True):
                if info.in_shard:
                    yield name, flat.grad[info.offset_in_shard : info.offset_in_shard + info.numel_in_shard]


def _of_fsdp2(engine: Any) -> Gradients:
    for name, parameter in engine.module.named_parameters():
        gradient = parameter.grad
        if gradient is None:
            continue
        mesh, placements = engine.device_mesh, None
        if isinstance(gradient, DTensor):
            mesh, placements, gradient = gradient.device_mesh, gradient.placements, gradient.to_local()
        # What is not sharded over a dimension of the mesh, all along it have.
        if all(not at or (placements and placements[dim].is_shard()) for dim, at in enumerate(mesh.get_coordinate())):
            yield name, gradient


def _of_megatron(engine: Any) -> Gradients:
    """By the rules that megatron-core's own ``grad_norm`` counts by (``get_main_grads_for_grad_norm``)."""
    from megatron.core.tensor_parallel.layers import param_is_not_tensor_parallel_duplicate
    from megatron.core.transformer.module import param_is_not_shared

    if any(chunk.ddp_config.num_distributed_optimizer_instances > 1 for chunk in engine.module):
        raise InputError(
            "actor_rollout_ref.actor.megatron.override_ddp_config.num_distributed_optimizer_instances",
            "1 for the monitor of gradients",
            "more: each instance would be counted",
            "leave it at 1, or set rejuvenation.monitors.gradients=false",
        )
    names = _mcore_names(engine)
    for optimizer in distributed_optimizers(engine, "gradients"):
        kinds = ("model_float16_groups", "model_fp32_groups")
        groups = [group for kind in kinds for group in getattr(optimizer, kind, ())]
        for parameter in (parameter for group in groups for parameter in group):
            counted = param_is_not_shared(parameter) and param_is_not_tensor_parallel_duplicate(
                parameter, getattr(optimizer, "tp_group", None)
            )
            if counted:
                # The rest of the gradient is not reduced on this rank.
                mine = optimizer._get_model_param_range_map(parameter)["param"]
                yield names[parameter], parameter.main_grad.view(-1)[mine.start : mine.end]


def _mcore_names(engine: Any) -> dict[Any, str]:
    """Names of parameters, with the number of the layer in the whole model in place of that in the pipeline stage."""
    from verl.utils.megatron_utils import unwrap_model

    names = {}
    for chunk in engine.module:
        chunk = unwrap_model(chunk)
        for name, parameter in chunk.named_parameters():
            if found := _MCORE_LAYER.match(name):
                layer = chunk.get_submodule(found[1] + found[2])
                name = f"{found[1]}{layer.layer_number - 1}{found[3]}"
            names[parameter] = name
    return names
