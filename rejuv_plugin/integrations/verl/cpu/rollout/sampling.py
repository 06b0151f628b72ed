# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Sampling parameters of one request, and one sampling step for a batch of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from rejuv_plugin.errors import InputError
from rejuv_plugin.ops.sampling import inverse_cdf

LogprobsMode = Literal["processed_logprobs", "raw_logprobs"]

GREEDY_BELOW = 1e-5
"""Temperatures below this mean greedy decoding, as in vLLM."""

# Parameters of vLLM's SamplingParams that this engine does not implement: accepted at the value that changes nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (None, 1),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "min_p": (None, 0),
    "min_tokens": (None, 0),
    "n": (None, 1),
    "stop": (None, [], ()),
    "prompt_logprobs": (None,),
    "logit_bias": (None, {}),
    "bad_words": (None, []),
}
# Parameters that only concern text: tokens come in and go out here.
_TEXT_ONLY = frozenset(
    {"detokenize", "skip_special_tokens", "spaces_between_special_tokens", "include_stop_str_in_output"}
)
_KNOWN = frozenset({"temperature", "top_p", "top_k", "stop_token_ids", "ignore_eos", "logprobs", "seed"})
_LENGTH_KEYS = ("max_tokens", "max_new_tokens")


@dataclass(frozen=True)
class SamplingParams:
    """How to sample one request.

    Attributes:
        max_tokens: number of tokens after which the request is complete, at least 1.
        temperature: divides the logits; below ``GREEDY_BELOW`` the most likely token is taken, untruncated.
        top_p: smallest set of most likely tokens with at least this probability; 1 keeps all.
        top_k: number of most likely tokens to keep; 0 keeps all.
        stop_token_ids: tokens that end the request, themselves returned; the end-of-sequence tokens included.
        logprobs: whether the log-probabilities of the sampled tokens are wanted.
        seed: replaces ``rollout.seed`` for this request.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop_token_ids: frozenset[int] = frozenset()
    logprobs: bool = True
    seed: int | None = None

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW


def parse_sampling_params(
    raw: Mapping[str, Any], *, defaults: Mapping[str, Any], eos_token_ids: frozenset[int], max_tokens: int
) -> SamplingParams:
    """Read the dictionary that verl's agent loops send with a request.

    Args:
        raw: vLLM-style names; a parameter that cannot be honoured raises unless it is at its neutral value.
        defaults: ``temperature``, ``top_p``, ``top_k`` and ``ignore_eos`` for requests that do not give them.
        eos_token_ids: stop tokens unless ``ignore_eos``.
        max_tokens: the length, already resolved by the server.
    """
    for key, value in raw.items():
        if key in _NEUTRAL:
            if value not in _NEUTRAL[key]:
                raise _bad(key, f"{_NEUTRAL[key][-1]!r} (not implemented on the CPU)", value)
        elif key not in _KNOWN and key not in _TEXT_ONLY and key not in _LENGTH_KEYS:
            raise _bad(key, f"one of {', '.join(sorted(_KNOWN | {'max_tokens'}))}", value)
    merged = {**defaults, **raw}
    temperature, top_p, top_k = float(merged["temperature"]), float(merged["top_p"]), int(merged["top_k"])
    if not 0 <= temperature < float("inf"):
        raise _bad("temperature", "a finite number, at least 0", temperature)
    if not 0 < top_p <= 1:
        raise _bad("top_p", "a number in (0, 1]", top_p)
    if top_k < -1:
        raise _bad("top_k", "-1 or 0 (off), or a positive number", top_k)
    stop = frozenset(int(token) for token in merged.get("stop_token_ids") or ())
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=max(top_k, 0),
        stop_token_ids=stop if merged["ignore_eos"] else stop | eos_token_ids,
        logprobs=bool(merged.get("logprobs")),
        seed=merged.get("seed"),
    )


def _bad(key: str, expected: str, got: object) -> InputError:
    return InputError(f"sampling_params.{key}", expected, repr(got), "change the rollout or agent loop setting")


class BatchSampler:
    """One sampling step for a batch of requests with different parameters.

    Args:
        params: one per row, in row order.
        mode: which log-probability is returned, by vLLM's names. ``processed_logprobs`` (verl's default): under the
            distribution sampled from, after temperature and truncation; equal to the actor's
            ``log_softmax(logits / temperature)`` when top-k and top-p are off. ``raw_logprobs``:
            ``log_softmax(logits)``. A greedy row counts as temperature 1 without truncation, in both.
    """

    def __init__(self, params: Sequence[SamplingParams], mode: LogprobsMode) -> None:
        self._mode = mode
        self._greedy = torch.tensor([p.greedy for p in params], dtype=torch.bool)
        self._temperature = torch.tensor([1.0 if p.greedy else p.temperature for p in params]).unsqueeze(1)
        # A greedy row is not truncated.
        self._top_k = torch.tensor([0 if p.greedy else p.top_k for p in params], dtype=torch.long).unsqueeze(1)
        self._top_p = torch.tensor([1.0 if p.greedy else p.top_p for p in params], dtype=torch.float64).unsqueeze(1)
        self._truncates = bool((self._top_k > 0).any() or (self._top_p < 1).any())

    def sample(self, logits: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw one token per row in float64, see `ops.sampling.inverse_cdf`.

        Args:
            logits: float32 ``[rows, vocabulary]``; -inf for tokens that must not be sampled.
            uniforms: float64 ``[rows]`` in [0, 1).

        Returns:
            Tokens, int64 ``[rows]``, and their log-probabilities, float32 ``[rows]``.
        """
        scaled = logits / self._temperature
        if self._truncates:
            scaled = _truncate(scaled, self._top_k, self._top_p)
        log_probs = scaled.double().log_softmax(-1)
        tokens = inverse_cdf(log_probs, uniforms)
        tokens = torch.where(self._greedy, logits.argmax(-1), tokens)
        reported = log_probs if self._mode == "processed_logprobs" else logits.double().log_softmax(-1)
        return tokens, reported.gather(1, tokens.unsqueeze(1)).squeeze(1).float()


def _truncate(logits: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Set logits outside top-k, then outside top-p of what is left, to -inf; ties with the k-th token are kept.

    Args:
        logits: float32 ``[rows, vocabulary]``.
        top_k: int64 ``[rows, 1]``, 0 = off.
        top_p: float64 ``[rows, 1]``, 1 = off.
    """
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    last_kept = torch.where(top_k > 0, top_k, logits.shape[-1]).clamp(max=logits.shape[-1]) - 1
    ordered = ordered.masked_fill(ordered < ordered.gather(1, last_kept), float("-inf"))
    probs = ordered.double().softmax(-1)
    before = probs.cumsum(-1) - probs
    ordered = ordered.masked_fill((before >= top_p) & (top_p < 1), float("-inf"))
    return torch.full_like(logits, float("-inf")).scatter(1, order, ordered)
