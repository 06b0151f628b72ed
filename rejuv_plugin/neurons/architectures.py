# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Where each architecture keeps its neurons: constants, keyed by ``model_type`` of config.json.

A *row* neuron is one output of a projection (q, k, v, gate, up): a row of its weight and one entry of its bias. A
*column* neuron is one input of a projection that writes to the residual stream (o, down): a column of its weight
(arXiv 2606.09932 v1, Sec. "attribution-guided neuron reset", Eq. 3 and 5).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import InputError

Config = Mapping[str, Any]
Kind = Literal["row", "column"]


@dataclass(frozen=True)
class Projection:
    """One linear module of a decoder layer."""

    path: str
    """Its path below the layer: ``self_attn.q_proj``."""
    kind: Kind
    parts: tuple[tuple[str, Callable[[Config], int]], ...] = ()
    """For fused projections: name and number of rows of each part, in the order of the rows. Each part is a module of
    its own in the selection, as if it were stored alone."""
    post_norm: str | None = None
    """Column projections only: path below the layer of an RMSNorm between the projection and the residual stream."""


@dataclass(frozen=True)
class Experts:
    """A mixture of gated experts: one matrix per expert and projection on the disk, stacked ones in transformers 5."""

    path: str
    """Of the stacked module below the layer, with ``gate_up_proj [E, 2I, H]`` and ``down_proj [E, H, I]``."""
    stored: str
    """Of the experts in checkpoints, below the layer: ``<stored>.<expert>.<gate>.weight``."""
    gate: str
    up: str
    down: str
    dense: tuple[Projection, ...]
    """What layers without experts have instead."""


@dataclass(frozen=True)
class Architecture:
    """A decoder whose residual stream is the embeddings plus the column projections, read through one final RMSNorm."""

    projections: tuple[Projection, ...]
    experts: Experts | None = None
    gain_offset: float = 0.0
    """What the architecture's RMSNorms add to their stored weight: 1 for Gemma, which stores ``gain - 1``."""
    layers: str = "model.layers"
    final_norm: str = "model.norm"


def _head_dim(config: Config) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def _query_rows(config: Config) -> int:
    return config["num_attention_heads"] * _head_dim(config)


def _key_rows(config: Config) -> int:
    return (config.get("num_key_value_heads") or config["num_attention_heads"]) * _head_dim(config)


def _mlp_rows(config: Config) -> int:
    return config["intermediate_size"]


_QKV = tuple(Projection(f"self_attn.{part}_proj", "row") for part in "qkv")
_GATE_UP = Projection("mlp.gate_proj", "row"), Projection("mlp.up_proj", "row")
_READERS = *_QKV, *_GATE_UP
_ATTENTION_WRITER, _MLP_WRITER = Projection("self_attn.o_proj", "column"), Projection("mlp.down_proj", "column")
_WRITERS = _ATTENTION_WRITER, _MLP_WRITER
STANDARD = Architecture((*_READERS, *_WRITERS))
GEMMA = Architecture(STANDARD.projections, gain_offset=1.0)
# Gemma 2 and 3 normalise what attention and MLP say before they add it.
GEMMA_POST_NORM = Architecture(
    (
        *_READERS,
        Projection("self_attn.o_proj", "column", post_norm="post_attention_layernorm"),
        Projection("mlp.down_proj", "column", post_norm="post_feedforward_layernorm"),
    ),
    gain_offset=1.0,
)
PHI3 = Architecture(
    (
        Projection("self_attn.qkv_proj", "row", (("q", _query_rows), ("k", _key_rows), ("v", _key_rows))),
        Projection("mlp.gate_up_proj", "row", (("gate", _mlp_rows), ("up", _mlp_rows))),
        *_WRITERS,
    )
)
_ATTENTION = (*_QKV, _ATTENTION_WRITER)
_MLP = (*_GATE_UP, _MLP_WRITER)
QWEN3_MOE = Architecture(
    _ATTENTION, Experts("mlp.experts", "mlp.experts", "gate_proj", "up_proj", "down_proj", dense=_MLP)
)
MIXTRAL = Architecture(_ATTENTION, Experts("mlp.experts", "block_sparse_moe.experts", "w1", "w3", "w2", dense=_MLP))

ARCHITECTURES: dict[str, Architecture] = {
    "llama": STANDARD,
    "mistral": STANDARD,
    "mixtral": MIXTRAL,
    "qwen2": STANDARD,
    "qwen3": STANDARD,
    "qwen3_moe": QWEN3_MOE,
    "gemma": GEMMA,
    "gemma2": GEMMA_POST_NORM,
    "gemma3_text": GEMMA_POST_NORM,
    "phi3": PHI3,
}
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")


def architecture_of(config: Config, key: str) -> Architecture:
    """The constants for a model by its config.json.

    Raises:
        InputError: named ``key``; no constants for this ``model_type``, or another mixture of experts.
    """
    model_type = config.get("model_type")
    if known := ARCHITECTURES.get(str(model_type)):
        return known
    if any(config.get(entry) for entry in EXPERT_COUNTS):
        raise InputError(
            key,
            f"an architecture whose neurons are known ({', '.join(ARCHITECTURES)})",
            f"{model_type!r}, another mixture of experts",
            "add it to rejuv_plugin/neurons/architectures.py as QWEN3_MOE is, or use fusion alone",
        )
    raise InputError(
        key,
        f"an architecture whose neurons are known ({', '.join(ARCHITECTURES)})",
        f"model_type {model_type!r}",
        f"if it has Llama's projections add one line to rejuv_plugin/neurons/architectures.py, "
        f'ARCHITECTURES["{model_type}"] = STANDARD (else list its projections as PHI3 does), or use fusion alone',
    )
