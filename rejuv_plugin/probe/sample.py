# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration data for those who have none: the SFT checkpoint's own answers to prompts of the RL training set."""

import random
from collections.abc import Iterator
from typing import Any

import torch

from ..checkpoint.digest import Progress
from ..checkpoint.layout import Checkpoint
from ..errors import InputError
from .calibration import Message, read_prompts
from .dialogue import needs_template, template_failed
from .load import load_model, load_tokenizer
from .prompts import Prompts

# Of a batch, prompts and responses together: each token's keys and values are kept while it is answered.
_BATCH_TOKENS = 16384


def sample_pairs(
    sft: Checkpoint, prompts: Prompts, examples: int, seed: int, device: torch.device, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """One answer at temperature 1 to each of some prompts, drawn without repetition.

    The answers come from the model's whole distribution: no top-k or top-p, and nothing else of the checkpoint's own
    generation config but the tokens that end an answer. Answers that are not finished after ``prompts.max_response``
    tokens are left out: their end is not the model's. The same seed gives the same answers on the same machine;
    torch's global generator is put back as it was.

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
        InputError: named by the checkpoint's key, no chat template; named by ``prompts.key``, see
            `calibration.read_prompts`, no prompt that is short enough, or no answer that ends.
    """
    tokenizer = load_tokenizer(sft)
    needs_template(tokenizer, sft.key)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    drawn = _drawn(sft, prompts, examples, seed, tokenizer)
    model, pairs, done = load_model(sft, device), [], 0
    ends = _use_only_the_ends(model, tokenizer, prompts.max_response)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for batch in _batches(drawn, prompts.max_response):
            pairs += _answered(model, tokenizer, batch, prompts.max_response, ends)
            done += len(batch)
            if progress:
                progress("sample", done, len(drawn))
    if not pairs:
        raise InputError(
            prompts.key,
            "prompts that the SFT checkpoint answers",
            f"no finished answer of at most {prompts.max_response} tokens to {len(drawn)} prompts",
            "allow longer responses, or give calibration data",
        )
    return pairs


# A prompt, and its token ids by the chat template.
Drawn = tuple[list[Message], list[int]]


def _drawn(sft: Checkpoint, prompts: Prompts, examples: int, seed: int, tokenizer: Any) -> list[Drawn]:
    every = [prompt for file in prompts.files for prompt in read_prompts(file, prompts.column, prompts.key)]
    random.Random(seed).shuffle(every)
    context = sft.config.get("max_position_embeddings")
    limits = [limit for limit in (prompts.max_prompt, context and context - prompts.max_response) if limit is not None]
    found: list[Drawn] = []
    for prompt in every:
        try:
            text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **prompts.template)
        # Templates are programs of their own and raise what they like.
        except Exception as error:
            raise template_failed(prompts.key, "a prompt", error) from None
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if all(len(ids) <= limit for limit in limits):
            found.append((prompt, ids))
        if len(found) == examples:
            return found
    if not found:
        raise InputError(
            prompts.key,
            f"prompts of at most {min(limits)} tokens, beside responses of up to {prompts.max_response}",
            f"{len(every)} longer ones",
            "allow longer prompts or shorter responses, or give calibration data",
        )
    return found


def _batches(drawn: list[Drawn], max_response: int) -> Iterator[list[Drawn]]:
    size = max(1, _BATCH_TOKENS // (max(len(ids) for _, ids in drawn) + max_response))
    return (drawn[first : first + size] for first in range(0, len(drawn), size))


def _use_only_the_ends(model: Any, tokenizer: Any, max_response: int) -> list[int]:
    """Replace the model's generation config, penalties and cuts and all; returns the tokens that end an answer."""
    from transformers import GenerationConfig

    # The generation config names all of them, the tokenizer one.
    configured = model.generation_config.eos_token_id
    configured = configured if isinstance(configured, list) else [configured]
    ends = [token for token in dict.fromkeys([*configured, tokenizer.eos_token_id]) if token is not None]
    model.generation_config = GenerationConfig(
        **{"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": max_response},
        **{"eos_token_id": ends, "pad_token_id": tokenizer.pad_token_id, "use_cache": True},
    )
    return ends


def _answered(
    model: Any, tokenizer: Any, batch: list[Drawn], max_response: int, ends: list[int]
) -> list[dict[str, Any]]:
    padded = tokenizer.pad({"input_ids": [ids for _, ids in batch]}, return_tensors="pt").to(model.device)
    output = model.generate(input_ids=padded["input_ids"], attention_mask=padded["attention_mask"])
    found = []
    for (prompt, _), ids in zip(batch, output[:, padded["input_ids"].shape[1] :].tolist(), strict=True):
        end = next((i for i, token in enumerate(ids) if token in ends), None)
        text = tokenizer.decode(ids[:end], skip_special_tokens=True) if end is not None else ""
        # Read back, a text can have more tokens than were sampled: bytes that are no character become three each.
        again = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        if text.strip() and again <= max_response:
            found.append({"prompt": list(prompt), "response": text})
    return found
