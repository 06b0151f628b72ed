# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What all that feeds monitors must know of verl's engine."""

from typing import Any


def is_megatron(engine: Any) -> bool:
    """Else it is FSDP. By a method, as verl can only import its Megatron engine where megatron-core is."""
    return hasattr(engine, "_build_megatron_module")


def number_of_layers(engine: Any) -> int:
    """Decoder layers of the language model, over all ranks; from its HF configuration."""
    return int(engine.model_config.hf_config.get_text_config().num_hidden_layers)
