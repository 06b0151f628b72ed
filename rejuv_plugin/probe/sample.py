# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration data for those who have none: the SFT checkpoint's own answers to prompts of the RL training set."""

import random
from collections.abc import Sequence
from typing import Any

import torch

from ..checkpoint.digest import Progress
from ..checkpoint.layout import Checkpoint
from ..errors import InputError
from .calibration import Message, read_prompts
from .load import load_model, load_tokenizer

# Answered at once; a setting of speed only by memory: each sequence keeps its keys and values.
_BATCH = 16


def prompts_of(files: Sequence[str], column: str, examples: int, seed: int, key: str) -> list[list[Message]]:
    """Prompts drawn without repetition from RL training files, all of them if there are fewer.

    Raises:
        InputError: named ``key``; see `calibration.read_prompts`.
    """
    prompts = [prompt for file in files for prompt in read_prompts(file, column, key)]
    return random.Random(seed).sample(prompts, min(examples, len(prompts)))


def sample_pairs(
    sft: Checkpoint,
    prompts: Sequence[list[Message]],
    max_response: int,
    seed: int,
    device: torch.device,
    key: str,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """One answer at temperature 1, without top-k or top-p, to each prompt.

    Answers that are not finished after ``max_response`` tokens are left out: their end is not the model's. The same
    seed gives the same answers on the same machine; torch's global generator is put back as it was.

    Args:
        sft: the checkpoint, with tokenizer and chat template.
        prompts: from `prompts_of`.
        max_response: tokens.
        seed: of the sampling.
        device: of the model.
        key: how errors name the prompts.
        progress: called with ``("sample", prompts done, prompts in all)``.

    Returns:
        ``{"prompt": messages, "response": text}``, in the order of the prompts.

    Raises:
        InputError: named by the checkpoint's key, no chat template; named ``key``, prompts that are too long for the
            context, or no answer that ends.
    """
    tokenizer = load_tokenizer(sft)
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(sft.key, "a tokenizer with a chat template", "none", "save SFT's template with the checkpoint")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model, pairs = load_model(sft, device), []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for first in range(0, len(prompts), _BATCH):
            pairs += _answered(model, tokenizer, prompts[first : first + _BATCH], max_response, key)
            if progress:
                progress("sample", min(first + _BATCH, len(prompts)), len(prompts))
    if not pairs:
        raise InputError(
            key,
            "prompts that the SFT checkpoint answers",
            f"no finished answer of at most {max_response} tokens to {len(prompts)} prompts",
            "allow longer responses, or give calibration data",
        )
    return pairs


def _answered(
    model: Any, tokenizer: Any, prompts: Sequence[list[Message]], max_response: int, key: str
) -> list[dict[str, Any]]:
    texts = [tokenizer.apply_chat_template(p, tokenize=False, add_generation_prompt=True) for p in prompts]
    encoded = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt").to(model.device)
    length = encoded["input_ids"].shape[1]
    context = getattr(model.config, "max_position_embeddings", None)
    if context and length + max_response > context:
        raise InputError(
            key,
            f"prompts and responses of at most {context} tokens together, the context of the model",
            f"a prompt of {length} and responses of up to {max_response}",
            "allow shorter responses, or give calibration data",
        )
    ends = _ends(model, tokenizer)
    output = model.generate(
        input_ids=encoded["input_ids"],
        attention_mask=encoded["attention_mask"],
        **{"max_new_tokens": max_response, "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0},
        **{"eos_token_id": ends, "pad_token_id": tokenizer.pad_token_id},
    )
    found = []
    for prompt, ids in zip(prompts, output[:, length:].tolist(), strict=True):
        end = next((i for i, token in enumerate(ids) if token in ends), None)
        text = tokenizer.decode(ids[:end], skip_special_tokens=True) if end is not None else ""
        # Read back, a text can have more tokens than were sampled: bytes that are no character become three each.
        again = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        if text.strip() and again <= max_response:
            found.append({"prompt": list(prompt), "response": text})
    return found


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the generation config names them all, the tokenizer one."""
    configured = model.generation_config.eos_token_id
    found = configured if isinstance(configured, list) else [configured]
    return [token for token in dict.fromkeys([*found, tokenizer.eos_token_id]) if token is not None]
