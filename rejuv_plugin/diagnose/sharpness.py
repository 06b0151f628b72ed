# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How sharp the loss is around a checkpoint, from its values along the gradient."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..ops.sharpness import critical_step
from ..probe.dialogue import Example
from .calibration_pass import differentiable, read, summed_nll
from .found import Found, curve, plain

EXAMPLES = 32
"""Of the calibration data, from its beginning: each value of the loss is a pass over them."""
RADIUS = 0.05
"""rho of Foret et al., arXiv 2010.01412, Sec. 3.1."""
# Of the distance at which the search begins, so that 2 to the power of 20 times it, up and down, holds any model's.
_START = 0.05
_DOUBLINGS = 20
_BISECTIONS = 5
_SHOWN = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
_MOST = 3 + (2 + _DOUBLINGS + _BISECTIONS) + len(_SHOWN)
"""Passes: the gradient, the loss before and after SAM's step, the search, the curve."""


def sharpness(
    model: Any, examples: Sequence[Example], key: str, tick: Callable[[int, int], None] = lambda done, most: None
) -> Found:
    """SAM's rise of the loss and the critical sharpness along the negative gradient, of the mean NLL over the response
    tokens of the first examples. The model's weights are put back, bit for bit.

    Needs memory for twice the model, its weights and the gradient, and for a copy of the weights on the host.

    Args:
        model: from `load.load_model`.
        examples: with targets.
        key: how errors name the model's checkpoint.
        tick: called with the passes done and the most there can be; once the search has ended, there are.

    Raises:
        InputError: named ``key``; NaN or infinite activations at the weights themselves.
    """
    examples = examples[:EXAMPLES]
    tick(0, _MOST)
    gradient = _gradient(model, examples, key)
    done, most = 1, _MOST
    tick(done, most)
    length = float(torch.stack([g.double().square().sum() for g in gradient]).sum().sqrt())
    if length == 0:
        tick(done, done)
        return Found()

    def counted() -> float:
        nonlocal done
        value = _loss(model, examples)
        done += 1
        tick(done, most)
        return value

    with along(model, gradient, counted) as loss:
        before = loss(0.0)
        rise = loss(RADIUS / length) - before
        critical = critical_step(lambda step: loss(-step), _START, _DOUBLINGS, _BISECTIONS)
        shown = [share * critical.step for share in _SHOWN] if critical.found else []
        most = done + len(shown)
        tick(done, most)
        drawn = curve(
            [0.0, *(step * length for step in shown)],
            [before, *(loss(-step) for step in shown)],
            "distance from the weights along the negative gradient (L2)",
            "mean NLL of the calibration responses (nats)",
        )
    numbers = {"sharpness_sam": plain(rise), "critical_sharpness": plain(critical.sharpness())}
    return Found(numbers, curves={"critical_sharpness": drawn} if shown else {})


@contextmanager
def along(model: Any, direction: Sequence[Tensor], value: Callable[[], float]) -> Iterator[Callable[[float], float]]:
    """A function of a step along a direction from the model's weights, which are put back at the end.

    Args:
        model: whose parameters.
        direction: a tensor for each of them.
        value: called with the model at ``weights + step * direction``.
    """
    parameters = list(model.parameters())
    # On the host: on the device weights and direction are twice the model already.
    start = [p.detach().to("cpu", copy=True) for p in parameters]

    def at(step: float) -> float:
        with torch.no_grad():
            for p, s, d in zip(parameters, start, direction, strict=True):
                p.copy_(s)
                p.add_(d, alpha=step)
        return value()

    try:
        yield at
    finally:
        with torch.no_grad():
            for p, s in zip(parameters, start, strict=True):
                p.copy_(s)


def _gradient(model: Any, examples: Sequence[Example], key: str) -> list[Tensor]:
    with differentiable(model):
        read(model, examples, 1.0, key, backward=True)
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]


def _loss(model: Any, examples: Sequence[Example]) -> float:
    """Not finite, without an error, far from where the model was trained."""
    with torch.no_grad():
        total = sum(float(summed_nll(model, example)) for example in examples)
    return total / sum(len(example.targets) for example in examples)
