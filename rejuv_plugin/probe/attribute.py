# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of every neuron at the kept positions of one example (arXiv 2606.09932 v1, Eq. 2 and 3).

What is attributed is the target token's logit before a cap (Gemma 2's ``final_logit_softcapping``): the cap is not
linear, but monotone, and the same for all neurons at a position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..neurons.architectures import Architecture
from ..neurons.modules import Module
from ..ops.attribution import column_contributions, gradient_times_activation, rms, through_norm
from .capture import Captured, capturing
from .experts import Routed


@dataclass(frozen=True)
class Attribution:
    """Of one example with P kept positions; all float32."""

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
    ids: Sequence[int],
    targets: Sequence[int],
) -> Attribution:
    """Run one forward and one backward pass over one example.

    Columns get their exact contributions. Rows get gradient x activation at the kept positions, where the paper does
    not say which gradient: ours is of the *sum* of the kept targets' logits, one backward pass for all of them. So a
    row at position t also counts for what it does for kept targets after t, as keys and values mostly do.

    Args:
        model: from `load.load_model`.
        architecture: its constants.
        modules: all modules with neurons: the rebuilt logit needs every writer.
        ids: T token ids.
        targets: P positions in ``ids``, each at least 1; the hidden states before them are looked at.
    """
    kept = torch.tensor(targets) - 1
    with capturing(model, architecture, modules, kept) as seen:
        hidden = model.base_model(input_ids=torch.tensor([list(ids)]), use_cache=False).last_hidden_state[0, kept]
        head = model.get_output_embeddings()
        wanted = torch.tensor(ids)[torch.tensor(targets)]
        rows = head.weight[wanted]
        logits = (hidden * rows).sum(-1)
        outputs = seen.graph
        gradients = dict(zip(outputs, torch.autograd.grad(logits.sum(), list(outputs.values())), strict=True))
    scores: dict[str, Tensor] = {}
    for module in (m for m in modules if m.kind == "row"):
        place = module.path, module.expert
        pair = (outputs[place].detach(), gradients[place]) if place in outputs else None
        scores[module.name] = _rows(module, seen, pair, kept)
    logits = logits.detach()
    rebuilt = torch.zeros_like(logits)
    if head.bias is not None:
        logits, rebuilt = logits + head.bias[wanted], rebuilt + head.bias[wanted]
    v = _before_norm(model, architecture, architecture.final_norm, rows, seen)
    assert seen.embeddings is not None
    rebuilt = rebuilt + (seen.embeddings * v).sum(-1)
    for module in (m for m in modules if m.kind == "column"):
        writer = model.get_submodule(module.path)
        if module.expert is not None:
            routed, weight = seen.experts[module.path].get(module.expert), writer.down_proj[module.expert]
            at, scores[module.name] = _expert_columns(routed, weight, v, kept)
            rebuilt = rebuilt.index_add(0, at, scores[module.name].sum(-1))
            continue
        direction = _before_norm(model, architecture, module.post_norm, v, seen) if module.post_norm else v
        scores[module.name] = column_contributions(seen.inputs[module.path], writer.weight, direction)
        rebuilt = rebuilt + scores[module.name].sum(-1)
        if writer.bias is not None:
            rebuilt = rebuilt + (writer.bias * direction).sum(-1)
    return Attribution(scores, logits, rebuilt)


def _rows(module: Module, seen: Captured, pair: tuple[Tensor, Tensor] | None, kept: Tensor) -> Tensor:
    if pair is None:
        return torch.zeros(0, module.count)
    part = slice(module.offset, module.offset + module.count)
    if module.expert is None:
        return gradient_times_activation(*(x[0, kept, part] for x in pair))
    _, at = seen.experts[module.path][module.expert].at(kept)
    return gradient_times_activation(*(x[at, part] for x in pair))


def _expert_columns(routed: Routed | None, weight: Tensor, v: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the kept positions came to the expert, and the contributions at these."""
    if routed is None:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, weight.shape[1])
    positions, at = routed.at(kept)
    return positions, column_contributions(routed.inner[at], weight, v[positions])


def _before_norm(model: Any, architecture: Architecture, path: str, direction: Tensor, seen: Captured) -> Tensor:
    norm = model.get_submodule(path)
    # The Llama family calls it variance_epsilon, Gemma eps.
    eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    return through_norm(direction, norm.weight + architecture.gain_offset, rms(seen.norms[path], eps))
