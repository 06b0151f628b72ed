# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Which tensors of a checkpoint a model is made of: those that a loader must have read."""

from ..checkpoint import Plan
from ..checkpoint.compatible import is_computed, is_head, is_prediction, of_text


def needed(plan: Plan, name: str, *, head: bool = True) -> bool:
    """Whether a model that is built of the output must have read the tensor ``name``. Tensors that are not needed may
    have been read as well.

    Args:
        plan: of the output.
        name: of a tensor in it.
        head: whether the model has an unembedding of its own. False as soon as it is known to be tied: config.json may
            leave that out, where it is what the architecture has anyway.
    """
    if is_prediction(plan.sft, name):
        return False  # loaded on request only
    if is_head(name):
        return not of_text(plan.sft, "tie_word_embeddings") and head
    info = plan.layout.tensors.get(name)  # none: a part of a stack
    return not is_computed(name, info.shape if info else ())
