# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Where to look in transformers' models, which verl's FSDP engines wrap."""

from collections.abc import Callable, Sequence
from typing import Any

from tensordict import TensorDict
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ....errors import InputError
from ....monitors.attention import AttentionMonitor
from ....monitors.neurons import NeuronMonitor
from ....probe.decoder import ModelShape, decoder_layers
from ....probe.experts import Routed, experts_of, one_by_one
from .guarded import Guard
from .sites import NOBODY, Hooks, Layout, Span, Watched, neuron_hooks, rank_hooks

_KEY = "rejuvenation.monitors"


class FsdpSites:
    """Of an initialised FSDP1 or FSDP2 engine. See `sites.Sites`."""

    multiple = 1

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.shape = ModelShape.of(engine.model_config.hf_config)
        self.modules = [engine.module]
        self.options = {
            "use_remove_padding": engine.model_config.get("use_remove_padding", False),
            "use_fused_kernels": engine.engine_config.use_fused_kernels,
        }

    def layouts(self, marks: Sequence[TensorDict]) -> list[Layout]:
        return [self._layout(micro) for micro in marks]

    def _layout(self, marks: TensorDict) -> Layout:
        # verl's own way with token ids: packs or pads them, and cuts them up for sequence parallelism. Pads are 0.
        inputs, _ = self._engine.prepare_model_inputs(marks)
        counted = inputs["input_ids"] == 1
        spans, first = [], 0
        for i, mark in enumerate(marks["input_ids"].unbind()):
            begin, at = (first, 0) if self.options["use_remove_padding"] else (0, i)
            if mark.any():
                spans.append(Span(slice(begin, begin + len(mark)), at))
            first += len(mark)
        return Layout(counted, counted, tuple(spans))

    def watch(self, hooks: Hooks, watched: Watched) -> None:
        if watched == NOBODY:
            return
        layers = decoder_layers(self._engine.module, self.shape.layers, _KEY, "turn off neurons, ranks and attention")
        for number, layer in enumerate(layers):
            if watched.ranks:
                rank_hooks(hooks, layer, watched.ranks, number)
            if watched.neurons:
                watched.neurons[1](_mlp_hooks)(hooks, getattr(layer, "mlp", None), watched.neurons, number)
        if watched.attention:
            attention = {layer.self_attn: number for number, layer in enumerate(layers) if hasattr(layer, "self_attn")}
            watched.attention[1](self._attention)(hooks, attention, *watched.attention)

    def _attention(self, hooks: Hooks, modules: dict[nn.Module, int], monitor: AttentionMonitor, guard: Guard) -> None:
        if self._engine.ulysses_sequence_parallel_size > 1:
            raise InputError(
                f"{_KEY}.attention",
                "whole sequences on each rank",
                f"ulysses_sequence_parallel_size {self._engine.ulysses_sequence_parallel_size}",
                f"set {_KEY}.attention=false",
            )
        turns = {module: hooks.turns(monitor.name, module, guard) for module in modules}

        @guard
        def see(module: nn.Module, query: Tensor, key: Tensor, options: dict[str, Any]) -> None:
            turn, again = turns[module].next()
            if again:
                return
            if options.get("s_aux") is not None:
                raise InputError(f"{_KEY}.attention", "plain attention", "sinks", f"set {_KEY}.attention=false")
            for span in hooks.layouts[turn].sequences:
                q, k = (tensor.detach()[span.at, :, span.along] for tensor in (query, key))
                scale = options.get("scaling") or q.shape[-1] ** -0.5
                window, softcap = options.get("sliding_window"), options.get("softcap")
                monitor.saw(modules[module], q, k, scale, window, softcap)

        find = ALL_ATTENTION_FUNCTIONS.get_interface

        def found(*args: Any, **kwargs: Any) -> Callable[..., Any]:
            attend = find(*args, **kwargs)

            def watched(module: nn.Module, query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Any:
                if module in turns:
                    see(module, query, key, options)
                return attend(module, query, key, *rest, **options)

            return watched

        # An attribute of the instance, found before the method of its class.
        ALL_ATTENTION_FUNCTIONS.get_interface = found  # type: ignore[method-assign]
        hooks.stack.callback(delattr, ALL_ATTENTION_FUNCTIONS, "get_interface")


def _mlp_hooks(hooks: Hooks, mlp: Any, watched: tuple[NeuronMonitor, Guard], layer: int) -> None:
    if hasattr(mlp, "down_proj"):
        neuron_hooks(hooks, mlp.down_proj, watched, layer, 0, mlp.down_proj.in_features)
        return
    experts = experts_of(mlp, f"{_KEY}.neurons", f"set {_KEY}.neurons=false")
    _expert_hooks(hooks, experts, watched, layer)


def _expert_hooks(hooks: Hooks, experts: Any, watched: tuple[NeuronMonitor, Guard], layer: int) -> None:
    """For this pass a loop over the experts; see `probe.experts`."""
    monitor, guard = watched
    turns, awaited = hooks.turns(monitor.name, experts, guard), set()

    def forward(hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        turn, again = turns.next()
        counted = hooks.layouts[turn].counted.flatten()

        def see(expert: int, routed: Routed) -> None:
            inner = routed.inner
            first, mine = expert * inner.shape[-1], counted[routed.tokens]
            if not again:
                guard(monitor.saw)("redo", layer, inner.detach()[mine], first)
            if inner.requires_grad and (turn, expert) not in awaited:
                awaited.add((turn, expert))
                inner.register_hook(_gradients(monitor, guard, layer, mine, first))

        return one_by_one(experts, hidden, index, weights, see)

    monitor.has(layer, experts.down_proj.shape[0] * experts.down_proj.shape[2])
    experts.forward = forward
    hooks.stack.callback(delattr, experts, "forward")


def _gradients(monitor: NeuronMonitor, guard: Guard, layer: int, mine: Tensor, first: int) -> Callable[..., None]:
    return guard(lambda gradient: monitor.saw("grama", layer, gradient[mine], first))
