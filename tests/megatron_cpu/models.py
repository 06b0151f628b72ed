# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny checkpoints of architectures that differ in Megatron's layout; made in a test's own process."""

from pathlib import Path

import torch
from tiny import tokenizer
from transformers import AutoModelForCausalLM, PretrainedConfig, Qwen2Config, Qwen3Config, Qwen3MoeConfig

VOCABULARY = 264  # an even number, as Megatron wants
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}


def config(name: str, head_dim: int = 16) -> PretrainedConfig:
    """``qwen2`` (biases), ``qwen2_tied``, ``qwen3`` (norms of queries and keys) or ``qwen3_moe`` (2 of 4 experts)."""
    match name:
        case "qwen2":
            return Qwen2Config(**_SIZES)
        case "qwen2_tied":
            return Qwen2Config(**_SIZES | {"tie_word_embeddings": True})
        case "qwen3":
            return Qwen3Config(**_SIZES, head_dim=head_dim)
        case "qwen3_moe":
            return Qwen3MoeConfig(
                **_SIZES,
                head_dim=head_dim,
                num_experts=4,
                num_experts_per_tok=2,
                moe_intermediate_size=48,
                norm_topk_prob=True,
                decoder_sparse_step=1,
                mlp_only_layers=[],
                router_aux_loss_coef=0.0,
            )
    raise KeyError(name)


def save(path: Path, name: str, *, seed: int, dtype: torch.dtype = torch.bfloat16, head_dim: int = 16) -> Path:
    """A random model of that name, in several files; no two seeds agree in any parameter."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config(name, head_dim), dtype=torch.float32)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.normal_(1.0 if parameter_name.endswith("norm.weight") else 0.0, 0.05)
    model.to(dtype).save_pretrained(path, max_shard_size="150KB")
    known = tokenizer()
    # A token that the tokenizer lacks has a probability in training, and none in rollouts.
    known.add_tokens([f"<|unused{number}|>" for number in range(VOCABULARY - len(known))])
    known.save_pretrained(path)
    return path
