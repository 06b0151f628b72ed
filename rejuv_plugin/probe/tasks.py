# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Prompts of RL data with what a reward function needs beside them, as the model sees them."""

import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..checkpoint.compatible import of_text
from ..checkpoint.layout import Checkpoint
from ..errors import InputError
from .calibration import Message, read_prompts
from .dialogue import needs_template, template_failed
from .load import load_tokenizer
from .prompts import SINGLE_TURN, Prompts


@dataclass(frozen=True)
class Task:
    """One RL prompt: a row of verl's parquet format, or a bare prompt."""

    prompt: list[Message]
    ids: list[int]
    """Of the prompt by the chat template, with the generation prompt."""
    data_source: str = ""
    ground_truth: Any = None
    """``reward_model.ground_truth``."""
    extra_info: Mapping[str, Any] | None = None


def draw_tasks(
    checkpoint: Checkpoint,
    prompts: Prompts,
    count: int,
    seed: int,
    tokenizer: Any | None = None,
    *,
    judged: bool = False,
) -> list[Task]:
    """Some tasks, drawn without repetition: the same for the same seed, whatever the checkpoint's weights. With a
    larger ``count`` come these first, then more.

    Args:
        checkpoint: with tokenizer, chat template and context length.
        prompts: where to draw from. Prompts that are too long are passed over, which is said on stderr.
        count: how many; all if there are fewer.
        seed: of the choice.
        tokenizer: the checkpoint's, where a caller has loaded it.
        judged: whether a reward function will look at the answers: then each row must have what verl hands it.

    Raises:
        InputError: named by the checkpoint's key, no chat template; named by ``prompts.key``, see
            `calibration.read_prompts`, or no room for a prompt, none that is short enough, or, of rows to be judged,
            nothing to judge by or several turns.
    """
    tokenizer = tokenizer or load_tokenizer(checkpoint)
    needs_template(tokenizer, checkpoint.key)
    every = [row for file in prompts.files for row in read_prompts(file, prompts.column, prompts.key)]
    random.Random(seed).shuffle(every)
    context = of_text(checkpoint, "max_position_embeddings")
    if context and prompts.max_response >= context:
        expected = f"room for a prompt and max_response in the {context} positions of {checkpoint.key}"
        fix = f"set max_response (--max-response) below {context}"
        raise InputError(prompts.key, expected, f"max_response {prompts.max_response}", fix)
    limits = [limit for limit in (prompts.max_prompt, context and context - prompts.max_response) if limit is not None]
    found: list[Task] = []
    too_long = 0
    for prompt, row in every:
        if judged:
            _check_judged(row, prompts.key)
        try:
            text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **prompts.template)
        # Templates are programs of their own and raise what they like.
        except Exception as error:
            raise template_failed(prompts.key, "a prompt", error) from None
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if all(len(ids) <= limit for limit in limits):
            found.append(_task(prompt, ids, row))
        else:
            too_long += 1
        if len(found) == count:
            break
    if not found:
        raise InputError(
            prompts.key,
            f"prompts of at most {min(limits)} tokens, beside responses of up to {prompts.max_response}",
            f"{len(every)} longer ones",
            "allow shorter responses, or give shorter prompts",
        )
    if too_long:
        # What is measured then is how shorter prompts are answered.
        print(
            f"rejuv: warning: {prompts.key}: {too_long} of {too_long + len(found)} prompts that were drawn have more "
            f"than {min(limits)} tokens and were passed over",
            file=sys.stderr,
        )
    return found


def _check_judged(row: Mapping[str, Any], key: str) -> None:
    if (agent := row.get("agent_name") or SINGLE_TURN) != SINGLE_TURN:
        expected, got = "rows that one answer ends, as no agent loop is run here", f"agent_name {agent!r}"
        raise InputError(key, expected, got, "give rows without agent_name that stand in for them")
    # verl reads the one without asking whether it is there, and hands over the other as a dict.
    truth, extra = row.get("reward_model"), row.get("extra_info")
    if not isinstance(truth, Mapping) or "ground_truth" not in truth:
        got = "none" if truth is None else repr(truth)[:80]
        fix = "write the column, with null if the reward has no use for it"
        raise InputError(key, "reward_model.ground_truth in each row, as verl does", got, fix)
    if extra is not None and not isinstance(extra, Mapping):
        raise InputError(key, "extra_info with names, or none", repr(extra)[:80], "write a struct, or leave it out")


def _task(prompt: list[Message], ids: list[int], row: Mapping[str, Any]) -> Task:
    checked = row.get("reward_model")
    truth = checked.get("ground_truth") if isinstance(checked, Mapping) else None
    return Task(prompt, ids, str(row.get("data_source") or ""), truth, row.get("extra_info") or {})
