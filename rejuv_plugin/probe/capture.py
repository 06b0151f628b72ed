# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What attribution needs to see of a forward pass: the residual stream between layers, then one layer at a time."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..neurons.architectures import Architecture
from ..neurons.modules import Module
from .experts import Routed, recorded


@dataclass(frozen=True)
class Call:
    """How a decoder layer was called, to call it again."""

    path: str
    """Of the layer: ``model.layers.0``."""
    layer: nn.Module
    hidden: Tensor
    """``[1, T, H]``: the residual stream that it read."""
    rest: tuple[Any, ...]
    named: Mapping[str, Any]

    def again(self, hidden: Tensor) -> Tensor:
        """The layer's output ``[1, T, H]`` for another input."""
        output = self.layer(hidden, *self.rest, **self.named)
        return output[0] if isinstance(output, tuple) else output


@dataclass(frozen=True)
class Trace:
    """One sequence's way through a model, without a graph. T tokens, H hidden size, L layers: ``L * T * H`` in all."""

    ids: Tensor
    """``[T]`` int64."""
    calls: tuple[Call, ...]
    """By layer, the first first."""
    final: Tensor
    """``[1, T, H]``: what the final norm reads."""
    hidden: Tensor
    """``[T, H]``: what it gives; the unembedding reads this."""


def trace(model: Any, architecture: Architecture, ids: Tensor) -> Trace:
    """Run the model on ``[T]`` int64 token ids on its device; no hook is left at the end."""
    calls: list[Call] = []
    final: list[Tensor] = []

    def called(path: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            named = dict(named)
            hidden, rest = (args[0], args[1:]) if args else (named.pop("hidden_states"), ())
            calls.append(Call(path, layer, hidden, rest, named))

        return hook

    paths = [f"{architecture.layers}.{i}" for i in range(len(model.get_submodule(architecture.layers)))]
    handles = [model.get_submodule(p).register_forward_pre_hook(called(p), with_kwargs=True) for p in paths]
    norm = model.get_submodule(architecture.final_norm)
    handles.append(norm.register_forward_pre_hook(lambda module, args: final.append(args[0])))
    try:
        # Not inference mode: what is kept takes part in a graph later.
        with torch.no_grad():
            hidden = model.base_model(input_ids=ids[None], use_cache=False).last_hidden_state[0]
    finally:
        for handle in handles:
            handle.remove()
    return Trace(ids, tuple(calls), final[0], hidden)


@dataclass
class Captured:
    """What was seen of one layer. P kept positions, T tokens, H hidden size."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    """By module path, for column projections: ``[P, I]``."""
    outputs: dict[str, Tensor] = field(default_factory=dict)
    """By module path, for row projections: ``[1, T, R]``, in the autograd graph."""
    norms: dict[str, Tensor] = field(default_factory=dict)
    """By module path, what the norms after column projections read: ``[P, H]``."""
    experts: dict[str, dict[int, Routed]] = field(default_factory=dict)
    """By module path and expert."""

    @property
    def graph(self) -> dict[tuple[str, int | None], Tensor]:
        """All outputs in the autograd graph, by module path and expert."""
        found: dict[tuple[str, int | None], Tensor] = {(path, None): output for path, output in self.outputs.items()}
        for path, routed in self.experts.items():
            found |= {(path, number): expert.gate_up for number, expert in routed.items()}
        return found


@contextmanager
def capturing(model: nn.Module, modules: Iterable[Module], kept: Tensor) -> Iterator[Captured]:
    """Fill a `Captured` while a layer runs inside the block; no hook is left at its end.

    Args:
        model: from `load.load_model`.
        modules: the modules to watch, all of one layer.
        kept: ``[P]`` int64 positions.
    """
    modules, seen = list(modules), Captured()

    def keep_input(store: dict[str, Tensor], path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            store[path] = args[0].detach()[0, kept]

        return hook

    def keep_output(path: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            seen.outputs[path] = output

        return hook

    norms = dict.fromkeys(m.post_norm for m in modules if m.post_norm)
    handles = [model.get_submodule(p).register_forward_pre_hook(keep_input(seen.norms, p)) for p in norms]
    stack = ExitStack()
    for path in dict.fromkeys(m.path for m in modules if m.expert is not None):
        seen.experts[path] = stack.enter_context(recorded(model.get_submodule(path)))
    for path, kind in {m.path: m.kind for m in modules if m.expert is None}.items():
        module = model.get_submodule(path)
        if kind == "column":
            handles.append(module.register_forward_pre_hook(keep_input(seen.inputs, path)))
        else:
            handles.append(module.register_forward_hook(keep_output(path)))
    try:
        with torch.enable_grad():
            yield seen
    finally:
        stack.close()
        for handle in handles:
            handle.remove()
