# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The decoder of a transformers model: how many layers, how wide, and where they are."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import InputError
from ..neurons.architectures import EXPERT_COUNTS


@dataclass(frozen=True)
class ModelShape:
    """Of the whole model's decoder, the same on every rank."""

    layers: int
    hidden: int
    width: int
    """The most MLP neurons that a layer has, of all its experts."""

    @classmethod
    def of(cls, hf_config: Any) -> "ModelShape":
        config = hf_config.get_text_config()
        experts = next((n for n in (getattr(config, name, None) for name in EXPERT_COUNTS) if n), 0)
        dense = getattr(config, "intermediate_size", None) or 0
        if isinstance(dense, (list, tuple)):
            # Gemma 3n's: of each layer.
            dense = max(dense)
        routed = experts * (getattr(config, "moe_intermediate_size", None) or dense)
        return cls(config.num_hidden_layers, config.hidden_size, max(dense, routed))


def decoder_layers(model: nn.Module, count: int, key: str, fix: str) -> nn.ModuleList:
    """The list of decoder layers, not that of another tower.

    Args:
        model: of transformers, wrapped or not.
        count: how many layers there are, see `ModelShape`.
        key: how errors name what asks for them.
        fix: how to do without.

    Raises:
        InputError: named ``key``; no such list.
    """
    for name, module in model.named_modules():
        decoder = name.endswith("layers") and "vis" not in name and "audio" not in name
        if decoder and isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise InputError(key, f"a model with a list of {count} decoder layers", type(model).__name__, fix)
