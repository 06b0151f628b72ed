# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration data for those who have none: the SFT checkpoint's own answers to prompts of the RL training set."""

from typing import Any

import torch

from ..checkpoint.layout import Checkpoint
from ..checkpoint.progress import Progress
from ..errors import InputError
from .answers import no_answers, sample_answers
from .load import load_model, load_tokenizer
from .prompts import Prompts
from .tasks import draw_tasks


def sample_pairs(
    sft: Checkpoint, prompts: Prompts, examples: int, seed: int, device: torch.device, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """One answer at temperature 1 to each of some prompts, drawn without repetition.

    See `answers.sample_answers` for the distribution that the answers come from. Answers that are not finished after
    ``prompts.max_response`` tokens are left out: their end is not the model's. The same seed gives the same answers on
    the same machine.

    Args:
        sft: the checkpoint, with tokenizer and chat template.
        prompts: where to draw from.
        examples: how many prompts to answer; all if there are fewer.
        seed: of the choice and of the sampling.
        device: of the model.
        progress: called with ``("sample", prompts done, prompts in all)``.

    Returns:
        ``{"prompt": messages, "response": text}``, in the order they were drawn.

    Raises:
        InputError: as `tasks.draw_tasks`; named by ``prompts.key``, no answer that ends; named by the checkpoint's key,
            logits that are not finite.
    """
    tokenizer = load_tokenizer(sft)
    tasks = draw_tasks(sft, prompts, examples, seed, tokenizer)
    try:
        said = sample_answers(
            load_model(sft, device),
            tokenizer,
            tasks,
            1,
            prompts.max_response,
            temperature=1.0,
            seed=seed,
            progress=progress,
        )
    except FloatingPointError as error:
        raise no_answers(sft.key, error) from None
    pairs = []
    for task, (text,), (finished,) in zip(tasks, said.texts, said.finished, strict=True):
        # Read back, a text can have more tokens than were sampled: bytes that are no character become three each.
        again = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        if finished and text.strip() and again <= prompts.max_response:
            pairs.append({"prompt": list(task.prompt), "response": text})
    if not pairs:
        raise InputError(
            prompts.key,
            "prompts that the SFT checkpoint answers",
            f"no finished answer of at most {prompts.max_response} tokens to {len(tasks)} prompts",
            "allow longer responses, or give calibration data",
        )
    return pairs
