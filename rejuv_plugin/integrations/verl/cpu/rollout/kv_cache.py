# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of a left-padded key-value cache: cutting some out, stacking two caches."""

from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache


def new_cache() -> DynamicCache:
    """An empty cache. Without a configuration every layer is the plain kind, which keeps all columns of all rows."""
    return DynamicCache()


def keep_rows(cache: DynamicCache, rows: torch.Tensor, first_column: int) -> None:
    """Keep some rows, in place, and drop the columns before ``first_column``.

    Args:
        rows: int64 ``[kept]``.
        first_column: padding in all of these rows ends at the earliest here.
    """
    for layer in _layers(cache):
        layer.keys = layer.keys[rows, :, first_column:]
        layer.values = layer.values[rows, :, first_column:]


def append_rows(cache: DynamicCache, other: DynamicCache) -> None:
    """Put the rows of ``other`` under those of ``cache``, in place; the narrower one is padded on the left."""
    width = max(cache.get_seq_length(), other.get_seq_length())
    for layer, below in zip(_layers(cache), _layers(other), strict=True):
        layer.keys = torch.cat([_widen(layer.keys, width), _widen(below.keys, width)])
        layer.values = torch.cat([_widen(layer.values, width), _widen(below.values, width)])


def _layers(cache: DynamicCache) -> list[Any]:
    """The layers, whose keys and values are tensors once the model has run."""
    return list(cache.layers)


def _widen(states: torch.Tensor, width: int) -> torch.Tensor:
    """Pad keys or values ``[rows, heads, cached, features]`` with zeros on the left of the third axis."""
    return pad(states, (0, 0, width - states.shape[2], 0))
