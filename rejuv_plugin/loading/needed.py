# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Which tensors of a checkpoint a model is made of: those that a loader must have read."""

import re

from ..checkpoint import Plan
from ..checkpoint.compatible import is_head, of_text


def needed(plan: Plan, name: str, *, head: bool = True) -> bool:
    """Whether a model that is built of the output reads the tensor ``name``.

    Args:
        plan: of the output.
        name: of a tensor in it.
        head: whether the model has an unembedding.
    """
    layer, layers = re.search(r"\blayers\.(\d+)\.", name), of_text(plan.sft, "num_hidden_layers")
    if layer and layers and int(layer[1]) >= layers:
        return False  # multi-token prediction: loaded on request only
    if is_head(name):
        return not of_text(plan.sft, "tie_word_embeddings") and head
    # Loaders compute it, and pass over what old checkpoints have stored.
    return not name.endswith("rotary_emb.inv_freq")
