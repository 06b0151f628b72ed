# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How certain a model is of the calibration responses, how right, and how far it is from the base in that."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..ops.bootstrap import Estimate, bootstrap, ratio
from ..ops.calibration_error import expected_calibration_error, reliability
from .calibration_pass import Tokens
from .found import Found, curve

_POINTS = 128
"""Response positions that are shown, each the mean of as many as it takes."""


def likelihood(tokens: Sequence[Tokens], base: Sequence[Tokens] | None, seed: int) -> Found:
    """Numbers over all response tokens, with intervals by a bootstrap over examples.

    Args:
        tokens: of a checkpoint, by example.
        base: of the base, of the same examples; None: the checkpoint is the base.
        seed: of the bootstrap.
    """
    counts = [len(t.nll) for t in tokens]

    def mean(of: Callable[[int], Tensor]) -> Estimate | None:
        sums = [(float(of(i).double().sum()), count) for i, count in enumerate(counts)]
        return bootstrap(torch.tensor(sums, dtype=torch.float64), ratio, seed)

    bins = torch.stack([reliability(t.confidence, t.correct) for t in tokens])
    numbers = {
        "entropy": mean(lambda i: tokens[i].entropy),
        "top1_mass": mean(lambda i: tokens[i].top1),
        "nll": mean(lambda i: tokens[i].nll),
        "calibration_error": bootstrap(bins, expected_calibration_error, seed),
    }
    positions = {
        "entropy": _by_position([t.entropy for t in tokens]),
        "nll": _by_position([t.nll for t in tokens]),
    }
    if base is not None:
        gaps = [(after.entropy - before.entropy).abs() for after, before in zip(tokens, base, strict=True)]
        both = [
            (float(a.entropy.double().sum()), float(b.entropy.double().sum()))
            for a, b in zip(tokens, base, strict=True)
        ]
        numbers["entropy_gap"] = mean(lambda i: gaps[i])
        numbers["nll_rise"] = mean(lambda i: tokens[i].nll.double() - base[i].nll.double())
        numbers["entropy_ratio"] = bootstrap(torch.tensor(both, dtype=torch.float64), ratio, seed)
        positions["entropy_gap"] = _by_position(gaps)
    return Found(numbers, positions=positions, curves={"calibration_error": _diagram(bins.sum(0))})


def _diagram(bins: Tensor) -> dict:
    count, confidence, correct = (bins[bins[:, 0] > 0]).unbind(-1)
    return curve(
        (confidence / count).tolist(),
        (correct / count).tolist(),
        "confidence: probability of the likeliest token",
        "accuracy: how often it came",
    )


def _by_position(values: Sequence[Tensor]) -> dict:
    """Means over examples by response position, from 0; of long responses over some positions in a row."""
    width = -(-max(len(v) for v in values) // _POINTS)
    at = torch.cat([torch.arange(len(v)) for v in values]) // width
    count = torch.bincount(at)
    total = torch.bincount(at, torch.cat(list(values)).double())
    return {
        "position": (torch.arange(len(count)) * width).tolist(),
        "value": (total / count).tolist(),
        "count": count.tolist(),
    }
