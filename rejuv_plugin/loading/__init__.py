# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Rejuvenated weights without a rejuvenated checkpoint: who loads the SFT checkpoint gets the values that `checkpoint`
would have written, tensor by tensor.

transformers, megatron-bridge and mbridge shard, fuse, pad, tie and cast what they read. We change what they read, in
the one format that all of them share, and no line of what they do with it: so the bits do not depend on the engine, its
parallelism, or ours.

To read in this order: parts, values, stack, serve, needed; by_drift.
"""

from .needed import needed
from .parts import by_tensor, parts, tensor_of
from .serve import serving
from .values import Values

__all__ = ["Values", "by_tensor", "needed", "parts", "serving", "tensor_of"]
