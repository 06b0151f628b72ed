# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The layers that megatron-core takes from Transformer Engine, in plain torch. To be imported after `cuda_stand_in`.

Class names, parameter names, shapes and shards are Transformer Engine's, so that verl, megatron-bridge and mbridge
build, fill and export the models that they build on a GPU (``linear_qkv.layer_norm_weight``,
``experts.linear_fc1.weight3``). What a layer computes is the same to rounding: no test may ask for a GPU's bits.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.models.backends import BackendSpecProvider
from megatron.core.models.gpt import gpt_layer_specs, moe_module_specs
from megatron.core.tensor_parallel.layers import (
    ColumnParallelLinear,
    RowParallelLinear,
    set_tensor_model_parallel_attributes,
)
from megatron.core.transformer import transformer_block
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.moe import moe_utils, token_dispatcher
from megatron.core.transformer.moe.experts import TEGroupedMLP


def _norm_weight(config: Any, size: int) -> torch.nn.Parameter:
    assert config.normalization == "RMSNorm"
    weight = torch.nn.Parameter(torch.ones(size, dtype=config.params_dtype))
    weight.sequence_parallel = config.sequence_parallel
    return weight


class TENorm(torch.nn.Module):
    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.eps = eps
        self.weight = _norm_weight(config, hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class TEColumnParallelLinear(ColumnParallelLinear):
    def __init__(self, input_size: int, output_size: int, *, tp_comm_buffer_name: Any = None, **options: Any) -> None:
        super().__init__(input_size, output_size, **options)


class TERowParallelLinear(RowParallelLinear):
    def __init__(self, input_size: int, output_size: int, *, tp_comm_buffer_name: Any = None, **options: Any) -> None:
        super().__init__(input_size, output_size, **options)


class TELayerNormColumnParallelLinear(TEColumnParallelLinear):
    def __init__(self, input_size: int, output_size: int, *, config: Any, **options: Any) -> None:
        super().__init__(input_size, output_size, config=config, **options)
        self.eps = config.layernorm_epsilon
        self.layer_norm_weight = _norm_weight(config, input_size)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        normed = F.rms_norm(x, self.layer_norm_weight.shape, self.layer_norm_weight, self.eps)
        return super().forward(normed, *args, **kwargs)


class _GroupedLinear(MegatronModule):
    """One weight for each local expert; tokens arrive sorted by expert. The dispatcher does all communication."""

    split_dim: int

    def __init__(
        self,
        num_gemms: int,
        input_size: int,
        output_size: int,
        *,
        config: Any,
        init_method: Any,
        bias: bool,
        is_expert: bool,
        pg_collection: Any = None,
        **_: Any,
    ) -> None:
        super().__init__(config=config)
        assert is_expert
        assert not bias
        self.use_bias = False
        group = pg_collection.expt_tp if pg_collection else parallel_state.get_expert_tensor_parallel_group()
        shape = [output_size, input_size]
        shape[self.split_dim] //= group.size()
        for expert in range(num_gemms):
            weight = torch.nn.Parameter(torch.empty(shape, dtype=config.params_dtype))
            init_method(weight.data)
            weight.allreduce = config.expert_model_parallel_size == 1
            set_tensor_model_parallel_attributes(weight, is_parallel=True, dim=self.split_dim, stride=1)
            self.register_parameter(f"weight{expert}", weight)

    def forward(self, x: torch.Tensor, tokens_per_expert: Any) -> tuple[torch.Tensor, None]:
        parts = x.split([int(count) for count in tokens_per_expert])
        return torch.cat([part @ getattr(self, f"weight{i}").t() for i, part in enumerate(parts)]), None


class TEColumnParallelGroupedLinear(_GroupedLinear):
    split_dim = 0


class TERowParallelGroupedLinear(_GroupedLinear):
    split_dim = 1


class TEDotProductAttention(MegatronModule):
    """Causal attention with grouped queries, on padded batches ([s, b, h, d]) and on packed ones ([t, h, d]).

    As in Transformer Engine, a causal layer looks at no other mask: pads come last, where no token sees them.
    """

    def __init__(self, config: Any, *_: Any, softmax_scale: float | None = None, **__: Any) -> None:
        super().__init__(config=config)
        self.scale = softmax_scale

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        attention_mask: torch.Tensor | None,
        attn_mask_type: AttnMaskType,
        packed_seq_params: Any = None,
        **_: Any,
    ) -> torch.Tensor:
        assert attn_mask_type in (AttnMaskType.causal, AttnMaskType.padding_causal)
        if packed_seq_params is None:
            return self._attend(q, k, v)
        padded, unpadded = packed_seq_params.cu_seqlens_q_padded, packed_seq_params.cu_seqlens_q
        lengths = (unpadded if padded is None else padded).diff().tolist()
        sequences = zip(*(t.unsqueeze(1).split(lengths) for t in (q, k, v)), strict=True)
        return torch.cat([self._attend(*sequence) for sequence in sequences])[:, 0]

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = (t.permute(1, 2, 0, 3) for t in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale, enable_gqa=True)
        return attended.permute(2, 0, 1, 3).flatten(2)


class StandInSpecProvider(BackendSpecProvider):
    """megatron's ``TESpecProvider``, with the classes above."""

    def column_parallel_linear(self) -> type:
        return TEColumnParallelLinear

    def row_parallel_linear(self) -> type:
        return TERowParallelLinear

    def fuse_layernorm_and_linear(self) -> bool:
        return True

    def column_parallel_layer_norm_linear(self) -> type:
        return TELayerNormColumnParallelLinear

    def layer_norm(self, rms_norm: bool = False, for_qk: bool = False) -> type:
        return TENorm

    def core_attention(self) -> type:
        return TEDotProductAttention

    def grouped_mlp_modules(
        self, moe_use_grouped_gemm: bool, moe_use_legacy_grouped_gemm: bool
    ) -> tuple[type, MLPSubmodules]:
        assert moe_use_grouped_gemm
        assert not moe_use_legacy_grouped_gemm
        return TEGroupedMLP, MLPSubmodules(
            linear_fc1=TEColumnParallelGroupedLinear, linear_fc2=TERowParallelGroupedLinear
        )

    def activation_func(self) -> None:
        return None


def _to_cpu(tensor: Any, as_numpy: bool = False, record_stream: bool = False) -> Any:
    """megatron's own converts to numpy only what it had to move."""
    return tensor.numpy() if as_numpy and torch.is_tensor(tensor) else tensor


def _install() -> None:
    gpt_layer_specs.TESpecProvider = moe_module_specs.TESpecProvider = StandInSpecProvider
    gpt_layer_specs.TENorm = transformer_block.LayerNormImpl = TENorm
    gpt_layer_specs.HAVE_TE = True
    # Names that megatron-core 0.16.1 uses without having looked whether Transformer Engine is there.
    moe_utils.te_general_gemm = None
    moe_utils.maybe_move_tensor_to_cpu = token_dispatcher.maybe_move_tensor_to_cpu = _to_cpu


def _import_bridge() -> None:
    """Import megatron-bridge, which names Transformer Engine's classes in its LoRA layers, that no test uses."""

    class Empty(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (torch.nn.Module,), {})

    package, inner = Empty("transformer_engine"), Empty("transformer_engine.pytorch")
    package.pytorch, inner.ops = inner, Empty("transformer_engine.pytorch.ops")
    sys.modules |= {package.__name__: package, inner.__name__: inner}
    try:
        importlib.import_module("megatron.bridge")
    finally:
        del sys.modules[package.__name__], sys.modules[inner.__name__]


_install()
_import_bridge()
