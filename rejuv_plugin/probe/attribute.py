# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of every neuron at the kept positions of one example (arXiv 2606.09932 v1, Eq. 2 and 3).

What is attributed is the target token's logit before a cap (Gemma 2's ``final_logit_softcapping``): the cap is not
linear, but monotone, and the same for all neurons at a position.

The backward pass goes layer by layer, each run once more from what it read: memory holds the residual stream between
layers and the graph of one layer, never that of the whole model, and no gradient of a parameter.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..neurons.architectures import Architecture
from ..neurons.modules import Module
from ..ops.attribution import column_contributions, gradient_times_activation, rms, through_norm
from .capture import Captured, Trace, capturing
from .experts import Routed
from .gathered import gathered


@dataclass(frozen=True)
class Attribution:
    """Of one example with P kept positions; all float32, on the model's device."""

    scores: dict[str, Tensor]
    """By `Module.name`: ``[P, neurons]``; of an expert only the positions that were routed to it."""
    logits: Tensor
    """``[P]``: of the target tokens, as the model computes them, before a cap."""
    rebuilt: Tensor
    """``[P]``: embeddings plus all contributions of all column projections and their biases. Its distance from
    ``logits`` is the reconstruction error, rounding aside 0 where the architecture's constants are right."""


def attribute(
    model: Any,
    architecture: Architecture,
    modules: Sequence[Module],
    trace: Trace,
    targets: Sequence[int],
    *,
    each: bool = False,
) -> Attribution:
    """Score all neurons of all modules at the positions before ``targets``.

    Columns get their exact contributions. Rows get gradient x activation at the kept positions, where the paper does
    not say which gradient: by default ours is of the *sum* of the kept targets' logits, one backward pass for all of
    them. So a row at position t also counts for what it does for kept targets after t, as keys and values mostly do.

    Args:
        model: from `load.load_model`.
        architecture: its constants.
        modules: all modules with neurons: the rebuilt logit needs every writer.
        trace: of the model on T tokens.
        targets: P positions of tokens, each at least 1; the hidden states before them are looked at.
        each: take the gradient of each target's own logit alone, at the price of P backward passes.
    """
    kept = torch.tensor(targets, device=trace.ids.device) - 1
    rows, bias = _unembedding(model, trace.ids[kept + 1])
    logits = (trace.hidden[kept] * rows).sum(-1) + bias
    with gathered(model.get_submodule(architecture.final_norm)):
        v = _before_norm(model, architecture, architecture.final_norm, rows, trace.final[0, kept])
        gradients = _of_final(model, architecture, trace, kept, rows, each)
    # The residual stream starts with what the first layer reads.
    rebuilt = (trace.calls[0].hidden[0, kept].float() * v).sum(-1) + bias
    by_layer: dict[str, list[Module]] = defaultdict(list)
    for module in modules:
        by_layer[module.layer].append(module)
    scores: dict[str, Tensor] = {}
    for call in reversed(trace.calls):
        members = by_layer.get(call.path, [])
        hidden = call.hidden.detach().requires_grad_()
        with gathered(call.layer):
            with capturing(model, members, kept) as seen:
                output = call.again(hidden)
            gradients, scored = _backward(output, hidden, seen, gradients, kept)
            for module in members:
                if module.kind == "row":
                    scores[module.name] = _rows(module, scored, kept)
                else:
                    at, scores[module.name], said = _columns(model, architecture, module, seen, v, kept)
                    rebuilt = rebuilt.index_add(0, at, scores[module.name].sum(-1) + said)
    return Attribution(scores, logits, rebuilt)


def _unembedding(model: Any, tokens: Tensor) -> tuple[Tensor, Tensor | float]:
    """Of ``[P]`` tokens: rows ``[P, H]`` of the unembedding, and ``[P]`` of its bias."""
    head = model.get_output_embeddings()
    with gathered(head):
        return head.weight[tokens], head.bias[tokens] if head.bias is not None else 0.0


def _of_final(
    model: Any, architecture: Architecture, trace: Trace, kept: Tensor, rows: Tensor, each: bool
) -> list[Tensor]:
    """Gradients ``[1, T, H]`` of the kept logits with respect to what the final norm read: of their sum, or of each."""
    final = trace.final.detach().requires_grad_()
    with torch.enable_grad():
        logits = (model.get_submodule(architecture.final_norm)(final)[0, kept] * rows).sum(-1)
    if not each:
        return list(torch.autograd.grad(logits.sum(), [final]))
    return [torch.autograd.grad(logit, [final], retain_graph=True)[0] for logit in logits]


def _backward(
    output: Tensor, hidden: Tensor, seen: Captured, gradients: list[Tensor], kept: Tensor
) -> tuple[list[Tensor], dict[tuple[str, int | None], Tensor]]:
    """One layer's backward pass.

    Args:
        output: ``[1, T, H]``: what the layer gave.
        hidden: ``[1, T, H]``: what it read, a leaf.
        seen: of the layer.
        gradients: with respect to ``output``: one for all P kept positions, or one for each.
        kept: ``[P]``.

    Returns:
        The gradients with respect to ``hidden``, and by module path and expert the scores ``[n, R]`` of the outputs at
        the n positions that came there. No more of a position's gradient is kept than its own row of each output.
    """
    outputs, of_hidden = seen.graph, []
    rows = {place: _positions(place, seen, kept) for place in outputs}
    picked: dict[tuple[str, int | None], list[Tensor]] = {place: [] for place in outputs}
    for p, gradient in enumerate(gradients):
        keep = p + 1 < len(gradients)
        found = torch.autograd.grad(output, [hidden, *outputs.values()], gradient, retain_graph=keep)
        of_hidden.append(found[0])
        for (place, (positions, at)), of_output in zip(rows.items(), found[1:], strict=True):
            mine = at if len(gradients) == 1 else at[positions == p]
            picked[place].append(of_output.flatten(0, -2)[mine])
    scores = {
        place: gradient_times_activation(outputs[place].detach().flatten(0, -2)[rows[place][1]], torch.cat(found))
        for place, found in picked.items()
    }
    return of_hidden, scores


def _positions(place: tuple[str, int | None], seen: Captured, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the kept positions came to a module, ascending, and their rows in its output."""
    path, expert = place
    if expert is None:
        return torch.arange(len(kept), device=kept.device), kept
    return seen.experts[path][expert].at(kept)


def _rows(module: Module, scored: dict[tuple[str, int | None], Tensor], kept: Tensor) -> Tensor:
    found = scored.get((module.path, module.expert))
    if found is None:
        return torch.zeros(0, module.count, device=kept.device)
    return found[:, module.offset : module.offset + module.count]


def _columns(
    model: Any, architecture: Architecture, module: Module, seen: Captured, v: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor | float]:
    """Which of the kept positions the writer spoke at, its columns' contributions there, and its bias's."""
    writer = model.get_submodule(module.path)
    if module.expert is not None:
        routed = seen.experts[module.path].get(module.expert)
        return *_expert_columns(routed, writer.down_proj[module.expert], v, kept), 0.0
    direction = v
    if module.post_norm:
        direction = _before_norm(model, architecture, module.post_norm, v, seen.norms[module.post_norm])
    found = column_contributions(seen.inputs[module.path], writer.weight, direction)
    bias = (writer.bias * direction).sum(-1) if writer.bias is not None else 0.0
    return torch.arange(len(kept), device=kept.device), found, bias


def _expert_columns(routed: Routed | None, weight: Tensor, v: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    if routed is None:
        return torch.zeros(0, dtype=torch.int64, device=kept.device), v.new_zeros(0, weight.shape[1])
    positions, at = routed.at(kept)
    return positions, column_contributions(routed.inner.detach()[at], weight, v[positions])


def _before_norm(model: Any, architecture: Architecture, path: str, direction: Tensor, read: Tensor) -> Tensor:
    norm = model.get_submodule(path)
    # The Llama family calls it variance_epsilon, Gemma eps.
    eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    return through_norm(direction, norm.weight + architecture.gain_offset, rms(read, eps))
