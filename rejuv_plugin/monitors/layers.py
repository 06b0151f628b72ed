# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Which decoder layer a weight belongs to."""

import re

_LAYER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.")
_OTHER_TOWERS = re.compile(r"(?:^|\.)(?:visual|vision_\w+|image_\w+|audio_\w+|mtp)\.")


def decoder_layer(name: str) -> int | None:
    """``model.layers.3.mlp.up_proj.weight`` -> 3; None for an HF name outside the language model's layers."""
    found = None if _OTHER_TOWERS.search(name) else _LAYER.search(name)
    return int(found.group(1)) if found else None
