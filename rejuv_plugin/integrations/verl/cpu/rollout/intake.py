# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""From what a client sends to a checked request."""

from collections.abc import Mapping
from typing import Any

from rejuv_plugin.errors import InputError

from .decode import Request
from .sampling import parse_sampling_params
from .settings import EngineSettings


def build_request(prompt_ids: list[int], sampling_params: Mapping[str, Any], settings: EngineSettings) -> Request:
    """Check a request and resolve its length as verl's vLLM server does.

    Args:
        prompt_ids: tokens of the prompt.
        sampling_params: as sent by verl's agent loops; ``max_tokens`` (or ``max_new_tokens``) is optional.
        settings: limits, defaults and end-of-sequence tokens.
    """
    room = settings.max_model_len - len(prompt_ids)
    if not prompt_ids or room < 1:
        raise InputError(
            "prompt_ids",
            f"1 to {settings.max_model_len - 1} tokens (rollout.max_model_len - 1)",
            f"{len(prompt_ids)} tokens",
            "shorten the prompt (data.max_prompt_length, filter_overlong_prompts) or raise rollout.max_model_len",
        )
    unknown = [token for token in prompt_ids if not 0 <= token < settings.embedding_size]
    if unknown:
        raise InputError("prompt_ids", f"ids below {settings.embedding_size}", str(unknown[0]), "use its tokenizer")
    max_tokens = sampling_params.get("max_tokens", sampling_params.get("max_new_tokens"))
    if max_tokens is None:
        budget = settings.prompt_length + settings.response_length - len(prompt_ids)
        max_tokens = min(settings.response_length, budget)
    params = parse_sampling_params(
        sampling_params,
        defaults=settings.defaults,
        eos_token_ids=settings.eos_token_ids,
        max_tokens=max(1, min(int(max_tokens), room)),
    )
    return Request(prompt_ids, params)
