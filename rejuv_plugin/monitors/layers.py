# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Which decoder layer a weight belongs to."""

import re

# Wrappers have names with an underscore in front.
_LAYER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.(?:_\w+\.)*(.+)")
# Modules beside the language model, and multi-token prediction.
_BESIDE = re.compile(r"(?:^|\.)(?:visual|vision|audio|image|mtp)")


def is_beside(name: str) -> bool:
    """Whether a weight is of another tower than the language model, or of its multi-token prediction."""
    return _BESIDE.search(name) is not None


def within_layer(name: str) -> tuple[int, str] | None:
    """The decoder layer of a weight, by its name in the Hugging Face or the megatron-core model, and the name in it:
    ``model.layers.3.mlp.up_proj.weight`` -> ``(3, "mlp.up_proj.weight")``. What wrappers put around a name does not
    matter. None outside the decoder layers."""
    found = None if is_beside(name) else _LAYER.search(name)
    return (int(found[1]), found[2]) if found else None
