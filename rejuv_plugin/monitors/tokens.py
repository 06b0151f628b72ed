# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How sure the policy is of its next token: entropy and top-1 mass on the batch that it is updated with."""

from collections.abc import Mapping
from math import isfinite
from typing import ClassVar

import torch
from torch import Tensor

from .metric import Metric
from .monitor import Monitor, Sums, Values

_REDUCTION = "mean over the response tokens of the step's first mini-batch, of all ranks"
_COST = (
    "one read of the logits in the training forward of the first mini-batch; without a GPU and Triton, about a "
    "log-softmax of them and 2 MiB of a CPU, 384 of another device"
)


class TokensMonitor(Monitor):
    """Token entropy and top-1 mass, at the sampling temperature, before the step's first update."""

    name: ClassVar[str] = "tokens"
    catalogue: ClassVar[tuple[Metric, ...]] = (
        Metric(
            name="entropy",
            meaning="entropy of the next-token distribution at the sampling temperature",
            unit="nats, 0 to log(vocabulary)",
            healthy="above 0.18 when RL starts, and not halved by step 150 (arXiv 2606.18487)",
            cost=_COST,
            reduction=_REDUCTION,
            source="H = -sum p log p; as alarm arXiv 2606.18487",
        ),
        Metric(
            name="top1_mass",
            meaning="probability of the likeliest next token at the sampling temperature",
            unit="probability, 1/vocabulary to 1",
            healthy="no threshold is known; near 1 the rollouts of a prompt are all the same",
            cost=_COST,
            reduction=_REDUCTION,
            source="max p",
        ),
    )

    def __init__(self) -> None:
        self._totals: Tensor | None = None

    def add(self, entropy: Tensor, top1: Tensor) -> None:
        """Count tokens, each on one rank only. Both ``[tokens]``, floating; copied."""
        totals = torch.stack([torch.ones_like(top1).double().sum(), entropy.double().sum(), top1.double().sum()])
        self._totals = totals if self._totals is None else self._totals + totals

    def sums(self) -> Sums:
        """``totals`` ``[3]``: tokens, the sum of their entropies, of their top-1 masses."""
        totals, self._totals = self._totals, None
        return {"totals": torch.zeros(3, dtype=torch.float64) if totals is None else totals.cpu()}

    def values(self, sums: Mapping[str, Tensor]) -> Values:
        tokens, entropy, top1 = sums["totals"].tolist()
        found = {"entropy": entropy / tokens, "top1_mass": top1 / tokens} if tokens else {}
        # Of logits that were not finite there is no entropy.
        return Values({name: value for name, value in found.items() if isfinite(value)})
