# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Where the gradient is: its norm by layer and part, before clipping."""

import re
from collections.abc import Iterable, Mapping
from math import nan, sqrt
from typing import ClassVar

import torch
from torch import Tensor

from ..checkpoint.compatible import EMBEDDINGS, HEADS
from .layers import is_beside, within_layer
from .metric import Metric
from .monitor import Monitor, Sums, Values

ATTENTION, MLP, REST = range(3)
"""Parts of a decoder layer; its norms are the rest."""
_PARTS = 3
# megatron-core's head is the last.
_EMBEDDING = re.compile(rf"(?:^|\.)(?:{'|'.join((*EMBEDDINGS, *HEADS, 'output_layer'))})\.")
# megatron-core keeps the norm before a projection in that projection's module.
_FUSED_NORM = re.compile(r"(?:linear_qkv|linear_fc1)\.layer_norm_|\.post_layernorm\.")
# On a CPU torch makes a float64 copy of what it takes a float64 norm of: 32 MiB. On a GPU there is none.
_PIECE = 4 << 20
_COST = "one read of the gradients per optimizer step; 32 MiB of a CPU"
_REDUCTION = "root of the mean square over the step's optimizer steps; squares summed over all ranks, each element once"


def place(name: str, layers: int) -> int:
    """The row of a parameter in tables of ``3 * layers + 2`` rows: attention, MLP and rest of each decoder layer, then
    embeddings with the head, then everything else.

    Args:
        name: in the Hugging Face or the megatron-core model, with the number of the layer in the whole model; what
            wrappers and adapters put around it does not matter.
        layers: of the language model.
    """
    found = within_layer(name)
    if not found or found[0] >= layers:
        embedding = not is_beside(name) and _EMBEDDING.search(name)
        return _PARTS * layers + (not embedding)
    layer, rest = found
    module = rest.partition(".")[0]
    if "norm" in module or _FUSED_NORM.search(rest):
        part = REST
    elif "attn" in module or "attention" in module:
        part = ATTENTION
    else:
        part = MLP if re.search("mlp|moe|feed_forward|ffn|expert", module) else REST
    return _PARTS * layer + part


class GradientsMonitor(Monitor):
    """Gradient norms of an actor before clipping, at every optimizer step. Read them with the update-to-weight ratio,
    never alone: over-trained policies can have the larger gradient and still learn less."""

    name: ClassVar[str] = "gradients"
    catalogue: ClassVar[tuple[Metric, ...]] = tuple(
        Metric(
            name=name,
            meaning=f"L2 norm of the gradient of {of}, before clipping",
            unit="norm, >= 0",
            healthy="no threshold is known; compare with the update-to-weight ratio and with the run's own start",
            cost=_COST,
            reduction=_REDUCTION,
            source="torch.nn.utils.clip_grad_norm_ (norm type 2), which verl's actor/grad_norm is",
        )
        for name, of in (
            ("grad_norm", "all trained parameters"),
            ("grad_norm_embeddings", "token embeddings and head"),
            ("grad_norm_attention", "the attention of each layer"),
            ("grad_norm_mlp", "the MLP or experts of each layer, with their router"),
        )
    )

    def __init__(self, layers: int, counts_steps: bool) -> None:
        """
        Args:
            layers: decoder layers of the whole model.
            counts_steps: true on exactly one rank.
        """
        self._layers, self._counts_steps = layers, counts_steps
        self._seen: list[tuple[list[int], list[int], Tensor]] = []
        """Rows, numbers of elements and squares of the pieces of one step or more."""
        self._steps = 0

    def add(self, gradients: Iterable[tuple[str, Tensor]], scale: float | Tensor = 1.0) -> None:
        """Look at the gradients of one optimizer step.

        Args:
            gradients: names (see `place`), and what this rank owns of the gradient, floating, any shape; read only.
            scale: of the loss, that all of them are to be divided by.
        """
        rows: list[int] = []
        pieces: list[Tensor] = []
        for name, gradient in gradients:
            # Of an empty shard a GPU would leave the norm undefined.
            of_it = gradient.detach().flatten().split(_PIECE) if gradient.numel() else ()
            rows += [place(name, self._layers)] * len(of_it)
            pieces += of_it
        elements = [piece.numel() for piece in pieces]
        # One launch for about a hundred of them; as torch.nn.utils.get_total_norm, but in float64.
        norms = torch._foreach_norm(pieces, 2, dtype=torch.float64) if pieces else []
        # On their device: waiting for them here would hold up training.
        squares = (torch.stack(norms) / scale).square() if pieces else torch.zeros(0)
        if self._seen and self._seen[-1][:2] == (rows, elements):
            squares = squares + self._seen.pop()[2]
        self._seen.append((rows, elements, squares))
        self._steps += self._counts_steps

    def sums(self) -> Sums:
        """``squares`` and ``elements``, by `place`: sums of squares over all steps, and numbers of elements, 0 where
        there was no gradient; ``steps`` ``[1]``."""
        squares, elements = torch.zeros(2, _PARTS * self._layers + 2, dtype=torch.float64)
        for rows, counts, found in self._seen:
            index = torch.tensor(rows, dtype=torch.long)
            squares.index_add_(0, index, found.cpu().double())
            elements.index_add_(0, index, torch.tensor(counts, dtype=torch.float64))
        steps = torch.tensor([self._steps], dtype=torch.float64)
        self._seen, self._steps = [], 0
        return {"squares": squares, "elements": elements, "steps": steps}

    def values(self, sums: Mapping[str, Tensor]) -> Values:
        steps = sums["steps"].item()
        if not steps:
            return Values()
        squares, elements = sums["squares"].tolist(), sums["elements"].tolist()
        norms = [sqrt(square / steps) if count else nan for square, count in zip(squares, elements, strict=True)]
        layers = {"grad_norm_attention": norms[:-2][ATTENTION::_PARTS], "grad_norm_mlp": norms[:-2][MLP::_PARTS]}
        return Values({"grad_norm": sqrt(sum(squares) / steps), "grad_norm_embeddings": norms[-2]}, layers)
