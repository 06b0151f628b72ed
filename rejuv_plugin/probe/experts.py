# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A mixture of experts run expert by expert, so that each expert's neurons are seen at the tokens routed to it.

transformers 5 stacks the experts of a layer and multiplies them in one kernel, which leaves nothing to hook. While we
look, its forward is replaced by the plain loop: the same function, in another order of additions.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..errors import InputError


@dataclass(frozen=True)
class Routed:
    """What one expert did for n tokens. I inner size."""

    tokens: Tensor
    """``[n]`` int64: positions in the sequence."""
    gate_up: Tensor
    """``[n, 2 * I]``: gate and up outputs, in the autograd graph."""
    inner: Tensor
    """``[n, I]``: what the down projection reads, times the router's weight for this token and expert; in the graph."""

    def at(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """For ``[P]`` positions those that came here: their indices in ``kept``, ascending, and in ``tokens``."""
        pairs = (kept[:, None] == self.tokens[None, :]).nonzero()
        return pairs[:, 0], pairs[:, 1]


def experts_of(mlp: Any, key: str, fix: str) -> Any:
    """The experts of an MLP without a ``down_proj`` of its own: stacked, without biases, as transformers 5 keeps most.

    Args:
        mlp: of a decoder layer; None where there is none.
        key: how errors name the setting that wants its neurons.
        fix: what to do if these cannot be had.

    Raises:
        InputError: named ``key``; it has no such experts.
    """
    experts = getattr(mlp, "experts", None)
    weights = (getattr(experts, name, None) for name in ("gate_up_proj", "down_proj"))
    # gpt-oss's kind has biases and its weights the other way round; transformers says so of a class.
    other = any(getattr(experts, name, False) for name in ("has_bias", "is_transposed"))
    other |= any(hasattr(experts, f"{name}_bias") for name in ("gate_up_proj", "down_proj"))
    if other or not all(isinstance(each, Tensor) for each in weights) or not hasattr(experts, "_apply_gate"):
        raise InputError(key, "MLPs with a down_proj, or stacked experts without biases", type(mlp).__name__, fix)
    return experts


def one_by_one(
    experts: Any, hidden: Tensor, index: Tensor, weights: Tensor, see: Callable[[int, Routed], None]
) -> Tensor:
    """The forward of stacked ``experts`` as a plain loop.

    Args:
        experts: from `experts_of`.
        hidden: ``[T, hidden]``.
        index: ``[T, k]`` int64, the experts of each token.
        weights: ``[T, k]``, the router's.
        see: called for each expert that gets a token, before its down projection.
    """
    output = torch.zeros_like(hidden)
    for number in index.unique().tolist():
        tokens, slots = (index == number).nonzero(as_tuple=True)
        gate_up = linear(hidden[tokens], experts.gate_up_proj[number])
        inner = experts._apply_gate(gate_up) * weights[tokens, slots, None]
        see(number, Routed(tokens, gate_up, inner))
        output = output.index_add(0, tokens, linear(inner, experts.down_proj[number]).to(output.dtype))
    return output


@contextmanager
def recorded(experts: Any) -> Iterator[dict[int, Routed]]:
    """Fill a dict by expert while the block runs; experts that get no token are not in it.

    Args:
        experts: from `experts_of`, called with one sequence.
    """
    seen: dict[int, Routed] = {}
    # An attribute of the instance, found before the method of its class.
    experts.forward = lambda hidden, index, weights: one_by_one(experts, hidden, index, weights, seen.__setitem__)
    try:
        yield seen
    finally:
        del experts.forward
