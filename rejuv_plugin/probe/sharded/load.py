# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint as a model whose rows are spread over all ranks; each reads its own from the files."""

from collections import defaultdict
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from ...checkpoint.layout import Checkpoint
from ...errors import InputError, one_line
from ...neurons.architectures import architecture_of
from ..load import skeleton
from .model import Turns
from .rows import Files, find


def load_sharded(checkpoint: Checkpoint, device: torch.device) -> Any:
    """The model that `load.load_model` gives, bit for bit, but that each of N ranks holds 1/N of its parameters. Inside
    `gathered.gathered` those of a module are whole. No rank waits for another here.

    Args:
        checkpoint: where every rank sees it.
        device: this rank's; a GPU must be the process's current one.

    Raises:
        InputError: named by the checkpoint's key; transformers cannot build it, or tensors are missing.
    """
    architecture = architecture_of(checkpoint.config, checkpoint.key)
    model = skeleton(checkpoint)
    if any(len(tied) > 1 and set(tied) <= checkpoint.tensors.keys() for tied in _names(model).values()):
        # Stored twice, and perhaps with other values, which is when transformers does not tie them.
        model = skeleton(checkpoint, tie_word_embeddings=False)
    names = _names(model)
    stored = {tied[0]: find(tied, parameter.shape, architecture, checkpoint) for parameter, tied in names.items()}
    buffers = dict(model.named_buffers())
    assert dist.group.WORLD is not None
    mesh = DeviceMesh.from_group(dist.group.WORLD, device.type)
    Turns(model, architecture, mesh)
    for name, buffer in buffers.items():
        path, _, last = name.rpartition(".")
        model.get_submodule(path)._buffers[last] = buffer.to(device)
    try:
        with torch.no_grad(), Files(checkpoint) as files:
            for name, parameter in model.named_parameters():
                local, dim = parameter.to_local(), parameter.placements[0].dim
                # FSDP2 cuts as torch.chunk does: all ranks the same, the last ones less or nothing.
                step = -(-parameter.shape[dim] // mesh.size())
                files.read(stored[name], dim, min(mesh.get_rank() * step, parameter.shape[dim]), local)
    except (OSError, SafetensorError) as error:
        reason = one_line(error)
        raise InputError(
            checkpoint.key, "weight files that every rank can read", reason, "put the checkpoint on a disk they all see"
        ) from None
    return model


def _names(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """All names of each parameter."""
    found = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found[parameter].append(name)
    return found
