# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A model's own answers to RL prompts, sampled with random numbers that all models share.

The uniform that decides token t of answer j to prompt i depends on (seed, i, j, t) alone: not on the model, the batch
or the device. So two models that are close give mostly the same answers, and where their scores differ it is the models
that differ, not their luck.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoint.progress import Progress
from ..errors import InputError
from ..ops.sampling import inverse_cdf, keyed_uniforms
from .tasks import Task

# Of a batch, prompts and responses together: each token's keys and values are kept while it is answered.
_BATCH_TOKENS = 16384


@dataclass(frozen=True)
class Answers:
    """P prompts, g answers each; every list is ``[P][g]``."""

    texts: list[list[str]]
    """Without special tokens, as verl gives them to a reward function."""
    ids: list[list[list[int]]]
    """What was sampled, the token that ended it included."""
    finished: list[list[bool]]
    """False for an answer that was cut at ``max_response`` tokens."""
    entropy: list[list[float]]
    """Mean over an answer's tokens of the entropy in nats that each was drawn at; NaN if the sampler cannot tell."""
    top1: list[list[float]]
    """Mean over an answer's tokens of the probability of the likeliest token; NaN if the sampler cannot tell."""


@dataclass(frozen=True)
class _Row:
    """One answer that is to be sampled, or has been."""

    prompt: int
    answer: int
    prompt_ids: list[int]
    ids: tuple[int, ...] = ()
    finished: bool = False
    entropy: float = float("nan")
    top1: float = float("nan")


def sample_answers(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[Task],
    group: int,
    max_response: int,
    temperature: float,
    seed: int,
    progress: Progress | None = None,
    *,
    first: int = 0,
) -> Answers:
    """Answers from the model's whole distribution: no top-k or top-p, and nothing of its own generation config but the
    tokens that end an answer. Token ids that the tokenizer does not know, which pad an embedding, are never drawn.

    Args:
        model: from `load.load_model`; left as it was.
        tokenizer: its tokenizer.
        tasks: P prompts.
        group: g, answers to each.
        max_response: tokens.
        temperature: divides the logits; above 0.
        seed: of the random numbers.
        progress: called with ``("sample", answers done, P * g)``.
        first: the number i of the first task, where these continue an earlier list.

    Returns:
        The answers. They are the same for any device and batch, up to the last bits of the logits.

    Raises:
        FloatingPointError: the model gives logits that are not finite.
    """
    rows = [_Row(i, j, task.ids) for i, task in enumerate(tasks, first) for j in range(group)]
    done: list[_Row] = []
    for batch in _batches(rows, max_response):
        done += _sampled(model, tokenizer, batch, max_response, temperature, seed)
        if progress:
            progress("sample", len(done), len(rows))
    of_prompts = [done[start : start + group] for start in range(0, len(done), group)]
    ends = set(_ends(model, tokenizer))
    return Answers(
        [[_text(tokenizer, row.ids, ends) for row in rows] for rows in of_prompts],
        [[list(row.ids) for row in rows] for rows in of_prompts],
        [[row.finished for row in rows] for rows in of_prompts],
        [[row.entropy for row in rows] for rows in of_prompts],
        [[row.top1 for row in rows] for rows in of_prompts],
    )


def no_answers(key: str, error: FloatingPointError, fix: str = "check the checkpoint") -> InputError:
    """What `sample_answers` raises, in words for those who gave the model.

    Args:
        key: how errors name it.
        fix: what to do.
    """
    return InputError(key, "finite logits while answering the prompts", str(error), fix)


def uniforms(seed: int, prompt: int, answer: int, count: int) -> np.ndarray:
    """The random numbers of one answer: float64 ``[count]`` in [0, 1). A longer answer begins with the same ones."""
    return keyed_uniforms(hashlib.sha256(f"{seed} {prompt} {answer}".encode()).digest()[:16], count)


def _batches(rows: list[_Row], max_response: int) -> Iterator[list[_Row]]:
    size = max(1, _BATCH_TOKENS // (max(len(row.prompt_ids) for row in rows) + max_response))
    return (rows[start : start + size] for start in range(0, len(rows), size))


class _Draw:
    """A logits processor for greedy decoding: it leaves the token that was drawn as the only one."""

    def __init__(self, uniforms: Tensor, temperature: float, vocabulary: int) -> None:
        self._uniforms, self._temperature, self._vocabulary = uniforms, temperature, vocabulary
        self.entropy: list[Tensor] = []
        self.top1: list[Tensor] = []

    def __call__(self, input_ids: Tensor, logits: Tensor) -> Tensor:
        known = logits[:, : self._vocabulary].double() / self._temperature
        if not torch.isfinite(known).all():
            raise FloatingPointError("the model returned logits that are not finite: does it generate text?")
        log_p = known.log_softmax(-1)
        tokens = inverse_cdf(log_p, self._uniforms[:, len(self.entropy)])
        self.entropy.append(-(log_p.exp() * log_p).sum(-1))
        self.top1.append(log_p.amax(-1).exp())
        return torch.full_like(logits, -torch.inf).scatter_(1, tokens.unsqueeze(1), 0.0)


@torch.inference_mode()
def _sampled(
    model: Any, tokenizer: Any, batch: list[_Row], max_response: int, temperature: float, seed: int
) -> list[_Row]:
    from transformers import GenerationConfig, LogitsProcessorList

    longest = max(len(row.prompt_ids) for row in batch)
    ids = torch.zeros((len(batch), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(batch):
        ids[i, longest - len(row.prompt_ids) :] = torch.tensor(row.prompt_ids)
        mask[i, longest - len(row.prompt_ids) :] = 1
    drawn = torch.from_numpy(np.stack([uniforms(seed, row.prompt, row.answer, max_response) for row in batch]))
    draw = _Draw(drawn.to(model.device), temperature, len(tokenizer))
    ends, own = _ends(model, tokenizer), model.generation_config
    # What a call does not set is taken from the model's own, penalties and cuts and all: so that is replaced meanwhile.
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_response,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
        use_cache=True,
    )
    try:
        output = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            logits_processor=LogitsProcessorList([draw]),
        )
    finally:
        model.generation_config = own
    entropy, top1 = (torch.stack(found, 1).cpu() for found in (draw.entropy, draw.top1))
    done = []
    for i, (row, said) in enumerate(zip(batch, output[:, longest:].tolist(), strict=True)):
        end = next((t for t, token in enumerate(said) if token in ends), None)
        length = len(said) if end is None else end + 1
        done.append(
            replace(
                row,
                ids=tuple(said[:length]),
                finished=end is not None,
                entropy=entropy[i, :length].mean().item(),
                top1=top1[i, :length].mean().item(),
            )
        )
    return done


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: the generation config names all of them, the tokenizer one."""
    configured = model.generation_config.eos_token_id
    configured = configured if isinstance(configured, list) else [configured]
    return [token for token in dict.fromkeys([*configured, tokenizer.eos_token_id]) if token is not None]


def _text(tokenizer: Any, ids: tuple[int, ...], ends: set[int]) -> str:
    return tokenizer.decode([token for token in ids if token not in ends], skip_special_tokens=True)
