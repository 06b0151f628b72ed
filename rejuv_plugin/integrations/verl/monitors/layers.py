# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How many decoder layers an engine's model has: over all its ranks."""

from typing import Any


def number_of_layers(engine: Any) -> int:
    """Of the language model, from its HF configuration."""
    return int(engine.model_config.hf_config.get_text_config().num_hidden_layers)
