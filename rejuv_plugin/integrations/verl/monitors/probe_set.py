# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The probe set: some dialogues that are never trained on, and this rank's part of them as a batch of verl's."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from transformers import AutoConfig
from verl.utils import tensordict_utils

from ....checkpoint import read_checkpoint
from ....config.monitors import MonitorProbeConfig
from ....errors import InputError
from ....probe.calibration import read_dialogues
from ....probe.dialogue import Example, tokenize
from ....probe.load import load_tokenizer
from ..job import Job

KEY = "rejuvenation.monitors.probe_set.data"
_MODEL = "actor_rollout_ref.model.path"
_SEQUENCES = 2


def read_probe_set(settings: MonitorProbeConfig, tokenizer: Any, hf_config: Any) -> list[Example]:
    """The first dialogues of the file, as the model sees them, cut to ``max_tokens``.

    Args:
        settings: with ``data``.
        tokenizer: of the model: a fast one, with a chat template.
        hf_config: of the model, for its context and its vocabulary.

    Returns:
        At most ``examples`` of them, each with response tokens, the same on every rank.

    Raises:
        InputError: see `probe.calibration.read_dialogues` and `probe.dialogue.tokenize`; also nothing left.
    """
    text = hf_config.get_text_config()
    context, vocabulary = (getattr(text, name, None) for name in ("max_position_embeddings", "vocab_size"))
    dialogues = read_dialogues(str(settings.data), KEY)[: settings.examples]
    whole = tokenize(dialogues, tokenizer, context or sys.maxsize, vocabulary or sys.maxsize, KEY, _MODEL)
    examples = [example for example in (e.first(settings.max_tokens) for e in whole) if example.targets]
    if not examples:
        raise InputError(
            KEY,
            f"responses within the first {settings.max_tokens} tokens",
            "none",
            "give shorter prompts, or more max_tokens",
        )
    return examples[: settings.examples]


def probe_set_of(job: Job) -> list[Example]:
    """The job's probe set: ``monitors.probe_set.data``, else the calibration data; empty without either, or if no
    monitor looks at it. Reads the tokenizer of the SFT checkpoint.

    Raises:
        InputError: `read_probe_set`.
    """
    monitors, data = job.settings.monitors, job.settings.monitors.probe_set.data or job.settings.reset.calibration
    if not data or not any((monitors.probe, monitors.neurons, monitors.ranks, monitors.attention)):
        return []
    sft = read_checkpoint(job.sft_path, _MODEL)
    config = AutoConfig.from_pretrained(sft.root, trust_remote_code=False)
    return read_probe_set(replace(monitors.probe_set, data=data), load_tokenizer(sft), config)


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
