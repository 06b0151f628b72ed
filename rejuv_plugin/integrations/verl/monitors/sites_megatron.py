# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Where to look in megatron-core's models."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from megatron.core import parallel_state as mpu
from tensordict import TensorDict
from torch import Tensor, nn
from verl.models.mcore.util import preprocess_bshd_engine, preprocess_thd_engine
from verl.utils.megatron_utils import unwrap_model

from ....errors import InputError
from ....monitors.attention import AttentionMonitor
from ....monitors.neurons import NeuronMonitor
from ....probe.decoder import ModelShape
from .guarded import Guard
from .sites import Hooks, Layout, Span, Watched, neuron_hooks, rank_hooks

_KEY = "rejuvenation.monitors"
_PROBE_SET_OFF = f"turn off all that look at the probe set: {_KEY}.probe, .neurons, .ranks, .attention, .sharpness"
_NEURONS_OFF = f"set {_KEY}.neurons=false"


class MegatronSites:
    """Of an initialised Megatron engine. See `sites.Sites`.

    Activations are ``[tokens, sequences, ...]``, packed ones ``[tokens, 1, ...]``. Tensor-parallel ranks have slices of
    the neurons and heads, and of the tokens of the residual stream if it is cut up, else one of them counts it.

    Raises:
        InputError: dynamic context parallelism, which deals out tokens anew in each micro-batch; fp8.
    """

    def __init__(self, engine: Any) -> None:
        if engine.engine_config.dynamic_context_parallel:
            raise InputError(_KEY, "static context parallelism", "dynamic_context_parallel", _PROBE_SET_OFF)
        if getattr(engine.tf_config, "fp8", None):
            raise InputError(_KEY, "16 or 32 bits", "fp8, whose scales would go by the probe set too", _PROBE_SET_OFF)
        self._engine = engine
        self.shape = ModelShape.of(engine.model_config.hf_config)
        self.modules = [unwrap_model(chunk) for chunk in engine.module]
        self.options = {
            "use_remove_padding": engine.engine_config.use_remove_padding,
            "use_fused_kernels": engine.engine_config.use_fused_kernels,
        }
        virtual = (mpu.get_virtual_pipeline_model_parallel_world_size() or 1) > 1
        self.multiple = engine.tf_config.microbatch_group_size_per_vp_stage if virtual else 1

    def layouts(self, marks: Sequence[TensorDict]) -> list[Layout]:
        longest = max(int(micro["input_ids"].offsets().diff().max()) for micro in marks)
        return [self._layout(micro["input_ids"], longest) for micro in marks]

    def _layout(self, marks: Tensor, longest: int) -> Layout:
        rows, begins = self._rows(marks, longest)
        counted = (rows == 1).T
        ranks, rank = mpu.get_tensor_model_parallel_world_size(), mpu.get_tensor_model_parallel_rank()
        if self._engine.tf_config.sequence_parallel:
            residual = counted.chunk(ranks)[rank]
        else:
            residual = counted if rank == 0 else torch.zeros_like(counted)
        spans = [
            Span(slice(first, first + len(mark)), at)
            for (first, at), mark in zip(begins, marks.unbind(), strict=True)
            if mark.any()
        ]
        return Layout(counted, residual, tuple(spans))

    def _rows(self, marks: Tensor, longest: int) -> tuple[Tensor, list[tuple[int, int]]]:
        """A micro-batch's tokens as this rank gets them, ``[1 or sequences, tokens]``, pads 0, laid out by verl's own
        functions; and, if ranks have whole sequences, where each begins and which column it is in."""
        model, settings = self.modules[0], self._engine.engine_config
        fp8 = model.config.fp8 in ("e4m3", "hybrid")
        if not settings.use_remove_padding:
            most = longest if settings.pad_bshd_to_minibatch_max else None
            rows = preprocess_bshd_engine(marks, use_fp8_padding=fp8, forced_max_seqlen=most)[0]
            return rows, [(0, i) for i in range(len(rows))]
        rows, packed, _ = preprocess_thd_engine(
            marks,
            use_fp8_padding=fp8,
            pad_to_length_bucket=settings.pad_to_length_bucket if settings.pad_to_length else None,
            cp_layout=self._engine._get_context_parallel_layout(model),
        )
        return rows, [(first, 0) for first in packed.cu_seqlens_q_padded.tolist()[:-1]]

    def watch(self, hooks: Hooks, watched: Watched) -> None:
        for model in self.modules:
            hooks.stack.enter_context(_plain_routers(model.config))
            for layer in getattr(model, "language_model", model).decoder.layers:
                number = layer.layer_number - 1
                if watched.ranks:
                    rank_hooks(hooks, layer, watched.ranks, number)
                if watched.neurons:
                    watched.neurons[1](_mlp_hooks)(hooks, layer.mlp, watched.neurons, number)
                if watched.attention:
                    watched.attention[1](_attention_hooks)(hooks, layer, *watched.attention)


@contextmanager
def _plain_routers(config: Any) -> Iterator[None]:
    """Without the routers' own losses and noise: they have no part in the NLL that is differentiated."""
    balance = config.moe_aux_loss_coeff
    without = {
        "moe_aux_loss_coeff": [0.0] * len(balance) if isinstance(balance, list) else 0.0,
        "moe_z_loss_coeff": None,
        "moe_input_jitter_eps": None,
    }
    before = {name: getattr(config, name) for name in without}
    vars(config).update(without)
    try:
        yield
    finally:
        vars(config).update(before)


def _mlp_hooks(hooks: Hooks, mlp: Any, watched: tuple[NeuronMonitor, Guard], layer: int) -> None:
    if hasattr(mlp, "linear_fc2"):
        ranks, rank = mpu.get_tensor_model_parallel_world_size(), mpu.get_tensor_model_parallel_rank()
        width = mlp.config.ffn_hidden_size
        neuron_hooks(hooks, mlp.linear_fc2, watched, layer, rank * (width // ranks), width)
        return
    _expert_hooks(hooks, mlp, watched, layer)


def _expert_hooks(hooks: Hooks, moe: Any, watched: tuple[NeuronMonitor, Guard], layer: int) -> None:
    """Routed experts get their tokens from all ranks, nobody knows which. So the router gives weight 0 to tokens that
    do not count: then neither do their activations. They are pads and copies, which no token that counts looks at."""
    monitor, guard = watched
    config, experts = moe.config, moe.experts
    if mpu.get_tensor_model_parallel_world_size() > 1 and not config.sequence_parallel:
        raise InputError(
            f"{_KEY}.neurons", "tokens that are cut up over tensor-parallel ranks", "copies of them", _NEURONS_OFF
        )
    if not hasattr(experts, "linear_fc2") or config.moe_apply_probs_on_input:
        raise InputError(
            f"{_KEY}.neurons",
            "grouped experts of Transformer Engine, which weigh what they say",
            type(experts).__name__,
            _NEURONS_OFF,
        )
    parts, part = mpu.get_expert_tensor_parallel_world_size(), mpu.get_expert_tensor_parallel_rank()
    inner = config.moe_ffn_hidden_size
    begin = mpu.get_expert_model_parallel_rank() * experts.num_local_experts
    firsts = [(begin + i) * inner + part * (inner // parts) for i in range(experts.num_local_experts)]
    turns, counts = hooks.turns(monitor.name, moe.router, guard), {}

    @guard
    def weigh(_: nn.Module, __: Any, output: Any) -> Any:
        turn, _again = turns.next()
        probs, routes = output
        return probs * hooks.layouts[turn].residual.reshape(-1, 1), routes

    def see(score: str, layout: Layout, values: Tensor) -> None:
        for first, own in zip(firsts, values.split(counts[id(layout)]), strict=True):
            monitor.saw(score, layer, own, first)

    def see_inputs(layout: Layout, h: Tensor, tokens_per_expert: Any, *_: Any) -> None:
        counts[id(layout)] = [int(count) for count in tokens_per_expert]
        see("redo", layout, h.detach())

    hooks.stack.callback(moe.router.register_forward_hook(weigh).remove)
    monitor.has(layer, config.num_moe_experts * inner)
    grama = partial(see, "grama")
    hooks.inputs(monitor.name, experts.linear_fc2, guard, see_inputs, grama)


def _attention_hooks(hooks: Hooks, layer: Any, monitor: AttentionMonitor, guard: Guard) -> None:
    config = layer.config
    special = {
        "context_parallel_size": config.context_parallel_size > 1,
        "multi_latent_attention": config.multi_latent_attention,
        "window_size": config.window_size is not None,
        "softmax_type": config.softmax_type != "vanilla",
    }
    if any(special.values()):
        raise InputError(
            f"{_KEY}.attention",
            "whole sequences and plain attention",
            ", ".join(name for name, there in special.items() if there),
            f"set {_KEY}.attention=false",
        )

    def see(layout: Layout, query: Tensor, key: Tensor, *_: Any) -> None:
        # Packed tensors come without the dimension of sequences.
        query, key = (t.detach() if t.dim() == 4 else t.detach().unsqueeze(1) for t in (query, key))
        for span in layout.sequences:
            q, k = (t[span.along, span.at].transpose(0, 1) for t in (query, key))
            scale = config.softmax_scale if config.softmax_scale is not None else q.shape[-1] ** -0.5
            monitor.saw(layer.layer_number - 1, q, k, scale)

    hooks.inputs(monitor.name, layer.self_attention.core_attention, guard, see)
