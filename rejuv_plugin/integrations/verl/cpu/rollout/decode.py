# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A batched decoder on plain transformers, which requests join and leave between two tokens.

Rows are left-padded to a common length. A joining batch is prefilled by itself; its keys and values are then padded and
stacked under those of the running rows. Finished rows are cut out, and columns that are padding in every row dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import pad
from transformers import DynamicCache

from .kv_cache import append_rows, keep_rows, new_cache
from .sampling import BatchSampler, LogprobsMode, SamplingParams


@dataclass(eq=False)
class Request:
    """One prompt being continued.

    Attributes:
        prompt_ids: at least one token.
        params: how to sample.
        uniforms: float64 ``[max_tokens]`` in [0, 1), one per token; set before the request is admitted.
        version: version of the weights that serve it; set before the request is admitted.
        token_ids: tokens sampled so far.
        log_probs: their log-probabilities.
        aborted: stopped before it was complete.
    """

    prompt_ids: list[int]
    params: SamplingParams
    uniforms: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    version: int | None = None
    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    aborted: bool = False

    @property
    def complete(self) -> bool:
        return len(self.token_ids) >= self.params.max_tokens or self.token_ids[-1] in self.params.stop_token_ids


@dataclass
class _Rows:
    """Running requests and their state, row by row: mask int64 ``[rows, cached]``, positions and last token ``[rows]``.

    The mask covers what is in the cache; the last token is not in it yet, and positions are those of the last token.
    """

    requests: list[Request]
    cache: DynamicCache
    mask: torch.Tensor
    position: torch.Tensor
    last_token: torch.Tensor
    sampler: BatchSampler


class BatchDecoder:
    """Decodes the running requests one token at a time, in the calling thread.

    Args:
        model: a causal language model in evaluation mode, with full or sliding attention in every layer; may be
            wrapped by PEFT between two calls.
        vocab_size: number of tokens the tokenizer knows. Higher ids exist only to pad the embedding matrix; they are
            masked before any softmax, as verl does in vLLM.
        mode: which log-probabilities to return, see ``BatchSampler``.
    """

    def __init__(self, model: torch.nn.Module, vocab_size: int, mode: LogprobsMode = "processed_logprobs") -> None:
        self.model = model
        self._vocab_size = vocab_size
        self._mode: LogprobsMode = mode
        self._rows: _Rows | None = None

    @property
    def running(self) -> list[Request]:
        """The requests being decoded."""
        return [] if self._rows is None else self._rows.requests

    def clear(self) -> list[Request]:
        """Forget the running requests and return them."""
        requests = list(self.running)
        self._rows = None
        return requests

    @torch.inference_mode()
    def admit(self, requests: Sequence[Request]) -> list[Request]:
        """Prefill new requests, sample their first token and let them run with the others.

        An error leaves the running requests as they were.

        Returns:
            Those of the new requests that are complete already.
        """
        if not requests:
            return []
        longest = max(len(request.prompt_ids) for request in requests)
        ids = torch.zeros((len(requests), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, request in enumerate(requests):
            ids[row, longest - len(request.prompt_ids) :] = torch.tensor(request.prompt_ids)
            mask[row, longest - len(request.prompt_ids) :] = 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        rows = _Rows(
            requests=list(requests),
            cache=new_cache(),
            mask=mask,
            position=mask.sum(1),
            last_token=ids[:, -1],
            sampler=BatchSampler([request.params for request in requests], self._mode),
        )
        finished = self._advance(rows, ids, positions)
        remaining = self._without(rows, finished)
        self._rows = remaining if self._rows is None else self._stack(self._rows, remaining)
        return finished

    @torch.inference_mode()
    def step(self) -> list[Request]:
        """Sample one token for every running request.

        Returns:
            The requests that it completed.
        """
        rows = self._rows
        if rows is None:
            return []
        rows.mask = pad(rows.mask, (0, 1), value=1)
        positions = rows.position.unsqueeze(1)
        rows.position = rows.position + 1
        finished = self._advance(rows, rows.last_token.unsqueeze(1), positions)
        self._rows = self._without(rows, finished)
        return finished

    def _advance(self, rows: _Rows, ids: torch.Tensor, positions: torch.Tensor) -> list[Request]:
        """Run the model on ``ids`` ``[rows, tokens]`` and append one sampled token to each request."""
        logits = (
            self.model(
                input_ids=ids,
                attention_mask=rows.mask,
                position_ids=positions,
                past_key_values=rows.cache,
                use_cache=True,
                logits_to_keep=1,
            )
            .logits[:, -1, : self._vocab_size]
            .float()
        )
        if not torch.isfinite(logits).all():
            raise FloatingPointError("the model returned logits that are not finite; its weights are broken")
        uniforms = np.array([request.uniforms[len(request.token_ids)] for request in rows.requests])
        rows.last_token, log_probs = rows.sampler.sample(logits, torch.from_numpy(uniforms))
        sampled = zip(rows.requests, rows.last_token.tolist(), log_probs.tolist(), strict=True)
        for request, token, log_prob in sampled:
            request.token_ids.append(token)
            request.log_probs.append(log_prob)
        return [request for request in rows.requests if request.complete]

    def _without(self, rows: _Rows, finished: list[Request]) -> _Rows | None:
        """Cut the finished rows out, and the columns that are then padding everywhere."""
        if not finished:
            return rows
        keep = [row for row, request in enumerate(rows.requests) if not request.complete]
        if not keep:
            return None
        index = torch.tensor(keep)
        mask = rows.mask[index]
        padding = int(mask.argmax(1).min())
        keep_rows(rows.cache, index, padding)
        requests = [rows.requests[row] for row in keep]
        return _Rows(
            requests=requests,
            cache=rows.cache,
            mask=mask[:, padding:],
            position=rows.position[index],
            last_token=rows.last_token[index],
            sampler=BatchSampler([request.params for request in requests], self._mode),
        )

    def _stack(self, upper: _Rows, lower: _Rows | None) -> _Rows:
        """Join two sets of rows; the narrower cache is padded on the left."""
        if lower is None:
            return upper
        width = max(upper.mask.shape[1], lower.mask.shape[1])
        append_rows(upper.cache, lower.cache)
        requests = upper.requests + lower.requests
        return _Rows(
            requests=requests,
            cache=upper.cache,
            mask=torch.cat([pad(rows.mask, (width - rows.mask.shape[1], 0)) for rows in (upper, lower)]),
            position=torch.cat([upper.position, lower.position]),
            last_token=torch.cat([upper.last_token, lower.last_token]),
            sampler=BatchSampler([request.params for request in requests], self._mode),
        )
