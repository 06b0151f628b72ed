# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Everything that a diagnosis looks at, read and checked before any model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..checkpoint import read_checkpoint
from ..checkpoint.adapter import is_adapter
from ..checkpoint.layout import Checkpoint
from ..checkpoint.source import locate
from ..config import DiagnosisConfig
from ..errors import InputError
from ..probe.decoder import ModelShape
from ..probe.dialogue import Example, check_vocabulary, read_examples
from ..probe.load import device_of, load_config, load_tokenizer
from ..probe.prompts import Prompts
from ..probe.reward import Reward, load_reward, try_out
from ..probe.tasks import Task, draw_tasks
from . import drift


@dataclass(frozen=True)
class Inputs:
    """Everything that is looked at, checked."""

    base: Checkpoint
    ladder: tuple[Checkpoint, ...]
    names: tuple[str, ...]
    """Of the ladder, each another."""
    examples: tuple[Example, ...]
    tasks: tuple[Task, ...]
    tokenizer: Any
    """Of the last checkpoint of the ladder; it is used for all, the base included."""
    reward: Reward | None
    device: torch.device
    layers: int
    settings: DiagnosisConfig


def read_inputs(base: str, ladder: Sequence[str], settings: DiagnosisConfig) -> Inputs:
    """Read and check everything but weights.

    Args:
        base: directory or hub name of the model before SFT.
        ladder: the same of SFT checkpoints, in the order of training.
        settings: what to measure, and on what.

    Raises:
        InputError: named by the command's options; nothing was written.
    """
    ours = read_checkpoint(base, "--base")
    theirs = tuple(_full(sft) for sft in ladder)
    for checkpoint in theirs:
        drift.weights_of(ours, checkpoint)
    last, device = theirs[-1], device_of(settings.device, "--device")
    shape = ModelShape.of(load_config(ours))
    examples = read_examples(last, settings.calibration, settings.max_tokens, "--calibration", settings.examples)
    reward = load_reward(settings.reward, "--reward") if settings.reward and settings.samples else None
    tokenizer, tasks = load_tokenizer(last), []
    if settings.samples:
        source = Prompts(settings.prompts, "prompt", None, settings.max_response, "--prompts")
        source.check()
        tasks = draw_tasks(last, source, settings.count, settings.seed, tokenizer, judged=reward is not None)
        if reward:
            try_out(reward, tasks[0], "--reward")
    check_vocabulary(ours, [*(example.ids for example in examples), *(task.ids for task in tasks)])
    return Inputs(
        ours,
        theirs,
        _distinct([checkpoint.label for checkpoint in theirs], ladder, ours.label),
        tuple(examples),
        tuple(tasks),
        tokenizer,
        reward,
        device,
        shape.layers,
        settings,
    )


def _full(sft: str) -> Checkpoint:
    if is_adapter(locate(sft, "--sft")):
        raise InputError("--sft", "full checkpoints to measure in", "a LoRA adapter", "merge it: rejuv apply --alpha 1")
    return read_checkpoint(sft, "--sft")


def _distinct(labels: Sequence[str], given: Sequence[str], base: str) -> tuple[str, ...]:
    """Labels where they tell the checkpoints apart, else what was given."""
    if len({base, *labels}) == 1 + len(labels):
        return tuple(labels)
    if len(set(given)) < len(given):
        raise InputError("--sft", "each checkpoint once", "one of them twice", "leave it out")
    return tuple(given)
