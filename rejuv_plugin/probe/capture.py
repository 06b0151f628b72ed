# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""One forward pass with everything that attribution needs, and nothing else, kept."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..neurons.architectures import Architecture
from ..neurons.modules import Module
from .experts import Routed, recorded


@dataclass
class Captured:
    """What was seen at the kept positions. P kept positions, T tokens, H hidden size."""

    embeddings: Tensor | None = None
    """``[P, H]``: what the residual stream starts with."""
    inputs: dict[str, Tensor] = field(default_factory=dict)
    """By module path, for column projections: ``[P, I]``."""
    outputs: dict[str, Tensor] = field(default_factory=dict)
    """By module path, for row projections: ``[1, T, R]``, in the autograd graph."""
    norms: dict[str, Tensor] = field(default_factory=dict)
    """By module path, what the final norm and the norms after column projections read: ``[P, H]``."""
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
def capturing(
    model: nn.Module, architecture: Architecture, modules: Iterable[Module], kept: Tensor
) -> Iterator[Captured]:
    """Fill a `Captured` during the forward pass inside the block; no hook is left at its end.

    The embeddings are made a leaf that asks for a gradient. So a graph exists although no parameter asks for one, and
    backward computes gradients of activations alone.

    Args:
        model: from `load.load_model`.
        architecture: its constants.
        modules: the modules to watch.
        kept: ``[P]`` int64 positions.
    """
    seen = Captured()

    def start(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        seen.embeddings = output[0, kept].detach()
        return output.detach().requires_grad_()

    def keep_input(store: dict[str, Tensor], path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            store[path] = args[0].detach()[0, kept]

        return hook

    def keep_output(path: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            seen.outputs[path] = output

        return hook

    handles = [model.get_submodule(architecture.embeddings).register_forward_hook(start)]
    norms = {architecture.final_norm} | {m.post_norm for m in modules if m.post_norm}
    handles += [model.get_submodule(p).register_forward_pre_hook(keep_input(seen.norms, p)) for p in sorted(norms)]
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
