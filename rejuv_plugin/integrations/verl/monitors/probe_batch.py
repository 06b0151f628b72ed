# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""This rank's part of the probe set, as a batch of verl's."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils

from ....probe.dialogue import Example

_SEQUENCES = 2


def batch_of(
    examples: Sequence[Example], rank: int, ranks: int, multiple: int, options: dict[str, Any]
) -> tuple[TensorDict, list[TensorDict]]:
    """Examples ``rank``, ``rank + ranks``, ... in micro-batches of one size, the same number of them on every rank.

    Where examples lack, copies of the shortest one fill up: they have no loss, and are not counted.

    Args:
        examples: of the whole probe set.
        rank, ranks: data-parallel.
        multiple: the number of micro-batches is one of it.
        options: more that verl reads from a batch, beside its tensors.

    Returns:
        The batch as verl's engines take it, and its micro-batches with other token ids: 1 where a token counts, else 0.
    """
    each = ceil(len(examples) / ranks)
    micro = min(_SEQUENCES, each)
    each = ceil(each / (micro * multiple)) * micro * multiple
    mine = list(examples[rank::ranks])
    copies = each - len(mine)
    sequences = mine + [min(examples, key=lambda e: len(e.ids))] * copies

    def batch(ids: Sequence[Tensor]) -> TensorDict:
        return tensordict_utils.get_tensordict(
            {
                "input_ids": _ragged(ids),
                "position_ids": _ragged([torch.arange(len(e.ids)) for e in sequences]),
                "loss_mask": _ragged([_said(e, counted=i < len(mine)) for i, e in enumerate(sequences)]),
            },
            non_tensor_dict={
                "use_dynamic_bsz": False,
                "micro_batch_size_per_gpu": micro,
                # At that of the model itself, whatever the rollout samples with.
                "temperature": 1.0,
            }
            | options,
        )

    marks = batch([torch.full((len(e.ids),), int(i < len(mine))) for i, e in enumerate(sequences)])
    data = batch([torch.tensor(e.ids) for e in sequences])
    return data, tensordict_utils.chunk_tensordict(marks, each // micro)


def _ragged(tensors: Sequence[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(list(tensors), layout=torch.jagged)


def _said(example: Example, *, counted: bool) -> Tensor:
    mask = torch.zeros(len(example.ids), dtype=torch.int64)
    if counted:
        mask[list(example.targets)] = 1
    return mask
