# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a model that says 90 % is right 90 % of the time."""

import torch
from torch import Tensor

BINS = 15
"""Of equal width, as in Guo et al., arXiv 1706.04599; and one of its own for a confidence of exactly 1."""


def reliability(confidence: Tensor, correct: Tensor, bins: int = BINS) -> Tensor:
    """What the reliability diagram and the calibration error are made of; add it up over parts of the data.

    Args:
        confidence: ``[n]``, any floating dtype, in [0, 1]: the probability of the answer that was given.
        correct: ``[n]`` bool: whether that was right.
        bins: of equal width, each with its lower edge in it. A confidence of 1 is in bin ``bins``, as torchmetrics'
            `MulticlassCalibrationError` has it.

    Returns:
        ``[bins + 1, 3]`` float64 by bin: how many, the sum of their confidences, how many were right.
    """
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype, device=confidence.device)
    at = torch.bucketize(confidence, edges, right=True) - 1
    rows = torch.stack([torch.ones_like(at), confidence, correct], -1).double()
    return rows.new_zeros(bins + 1, 3).index_add_(0, at, rows)


def expected_calibration_error(sums: Tensor) -> Tensor:
    """``sum_b n_b / n |accuracy_b - confidence_b|`` (Naeini et al., AAAI 2015; Guo et al., arXiv 1706.04599, Eq. 3).

    Args:
        sums: ``[..., bins, 3]`` from `reliability`, n above 0.

    Returns:
        ``[...]`` float64, 0 to 1.
    """
    count, confidence, correct = sums.unbind(-1)
    return (correct - confidence).abs().sum(-1) / count.sum(-1)
