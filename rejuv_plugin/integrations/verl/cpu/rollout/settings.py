# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What the engine needs from verl's configuration, checked before a model is built."""

from dataclasses import dataclass
from typing import Any

import torch

from rejuv_plugin.errors import InputError

from .sampling import LogprobsMode

_ROLLOUT = "actor_rollout_ref.rollout"
_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}


@dataclass(frozen=True)
class EngineSettings:
    """Settings of one server.

    Attributes:
        seed: ``rollout.seed``; with ``replica_rank`` it keys every request's random numbers.
        replica_rank: rank of the replica.
        max_model_len: most tokens of prompt and response together.
        prompt_length: verl's prompt budget; with ``response_length`` it is the default length of a response.
        response_length: verl's response budget.
        max_num_seqs: most requests decoded together. 1 under ``rollout.full_determinism``: the last bits of a logit
            depend on the shape of the batch, and which requests meet in a batch depends on timing; one at a time,
            tokens and log-probabilities are the same to the last bit in every run.
        max_num_batched_tokens: bound on the padded size of one prefill.
        vocab_size: number of tokens that may be sampled.
        embedding_size: number of tokens that a prompt may contain.
        eos_token_ids: end-of-sequence tokens of the tokenizer and of the generation configuration.
        defaults: temperature, top_p, top_k and ignore_eos of requests that do not say.
        logprobs_mode: see ``sampling.BatchSampler``.
        dtype: of the model.
        checkpoint: directory with the weights, or None to wait for the first update (``load_format=dummy``).
    """

    seed: int
    replica_rank: int
    max_model_len: int
    prompt_length: int
    response_length: int
    max_num_seqs: int
    max_num_batched_tokens: int
    vocab_size: int
    embedding_size: int
    eos_token_ids: frozenset[int]
    defaults: dict[str, Any]
    logprobs_mode: LogprobsMode
    dtype: torch.dtype
    checkpoint: str | None

    @classmethod
    def from_verl(cls, config: Any, model_config: Any, replica_rank: int) -> "EngineSettings":
        """Read verl's ``RolloutConfig`` and ``HFModelConfig``."""
        text_config = model_config.hf_config.get_text_config()
        positions = int(text_config.max_position_embeddings)
        max_model_len = positions if config.max_model_len is None else int(config.max_model_len)
        if max_model_len > positions:
            raise InputError(
                f"{_ROLLOUT}.max_model_len",
                f"at most the model's {positions} positions",
                str(max_model_len),
                "lower it",
            )
        tokenizer = model_config.tokenizer
        return cls(
            seed=int(config.seed),
            replica_rank=replica_rank,
            max_model_len=max_model_len,
            prompt_length=int(config.prompt_length),
            response_length=int(config.response_length),
            max_num_seqs=1 if config.full_determinism else int(config.max_num_seqs),
            max_num_batched_tokens=int(config.max_num_batched_tokens),
            vocab_size=min(len(tokenizer), int(text_config.vocab_size)),
            embedding_size=int(text_config.vocab_size),
            eos_token_ids=_eos_token_ids(tokenizer, model_config.generation_config),
            defaults={
                "temperature": config.temperature,
                "top_p": config.top_p,
                "top_k": config.top_k,
                "ignore_eos": config.ignore_eos,
            },
            logprobs_mode=_one_of("logprobs_mode", config.logprobs_mode, ("processed_logprobs", "raw_logprobs")),
            dtype=rollout_dtype(config),
            checkpoint=_checkpoint(config.load_format, model_config.local_path),
        )


def rollout_dtype(config: Any) -> torch.dtype:
    """The floating type of ``rollout.dtype``."""
    return _DTYPES[_one_of("dtype", str(config.dtype).removeprefix("torch."), tuple(_DTYPES))]


def require_one_process(config: Any) -> None:
    """Refuse a replica of several processes: the model runs in one.

    Args:
        config: verl's ``RolloutConfig``.
    """
    for axis in ("tensor", "pipeline"):
        size = getattr(config, f"{axis}_model_parallel_size")
        if size != 1:
            raise InputError(
                f"{_ROLLOUT}.{axis}_model_parallel_size", "1 (rollout.name=transformers_cpu)", str(size), "set it to 1"
            )
    if config.data_parallel_size != 1:
        raise InputError(
            f"{_ROLLOUT}.data_parallel_size",
            "1 (rollout.name=transformers_cpu)",
            str(config.data_parallel_size),
            "set it to 1; every training rank already gets a server of its own",
        )


def _one_of(key: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise InputError(f"{_ROLLOUT}.{key}", " or ".join(allowed), repr(value), "change it")
    return value


def _checkpoint(load_format: str, local_path: str) -> str | None:
    _one_of("load_format", load_format, ("dummy", "safetensors", "auto", "hf"))
    return None if load_format == "dummy" else local_path


def _eos_token_ids(tokenizer: Any, generation_config: Any) -> frozenset[int]:
    ids = getattr(generation_config, "eos_token_id", None)
    listed = ids if isinstance(ids, list) else [ids]
    return frozenset(token for token in [*listed, tokenizer.eos_token_id] if token is not None)
