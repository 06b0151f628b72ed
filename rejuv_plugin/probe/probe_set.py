# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The probe set: some dialogues that are never trained on, which monitors look at again and again."""

from typing import Any

from ..config import MonitorProbeConfig
from ..errors import InputError
from .calibration import read_dialogues
from .dialogue import Example, cut, tokenize

KEY = "rejuvenation.monitors.probe_set.data"
_MODEL = "actor_rollout_ref.model.path"


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
    examples = cut(tokenize(dialogues, tokenizer, context, vocabulary, KEY, _MODEL), settings.max_tokens)
    if not examples:
        raise InputError(
            KEY,
            f"responses within the first {settings.max_tokens} tokens",
            "none",
            "give shorter prompts, or more max_tokens",
        )
    return examples[: settings.examples]
