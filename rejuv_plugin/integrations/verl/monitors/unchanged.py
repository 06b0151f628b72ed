# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A pass that leaves no trace in what training goes on with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_DROPOUTS = ("p", "attention_dropout", "hidden_dropout")


@contextmanager
def unchanged(modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Put back what a forward and backward pass changes beside gradients: random generators, and buffers, such as the
    load that a router counts. Dropout is off meanwhile, though modules are in training mode, as gradient checkpointing
    wants them.

    Args:
        modules: the model.
        device: whose random generator, beside the CPU's.
    """
    everything = [module for top in modules for module in top.modules()]
    dropouts = [(module, name) for module in everything for name in _DROPOUTS if _is_dropout(module, name)]
    rates = [getattr(module, name) for module, name in dropouts]
    buffers = [(buffer, buffer.detach().clone()) for top in modules for buffer in top.buffers()]
    generators: Any = getattr(torch, device.type) if device.type != "cpu" else None
    states = torch.get_rng_state(), generators.get_rng_state() if generators else None
    try:
        for module, name in dropouts:
            setattr(module, name, 0.0)
        yield
    finally:
        for (module, name), rate in zip(dropouts, rates, strict=True):
            setattr(module, name, rate)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        torch.set_rng_state(states[0])
        if generators:
            generators.set_rng_state(states[1])


def _is_dropout(module: nn.Module, name: str) -> bool:
    return (name != "p" or "Dropout" in type(module).__name__) and isinstance(vars(module).get(name), float)
