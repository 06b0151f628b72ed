# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How likely and how varied the policy's next tokens are on the probe set."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from .metric import Metric
from .monitor import Sums, Values
from .probed import Look, ProbeSetMonitor

_REDUCTION = "mean over the response tokens of the probe set"
_COST = "a forward pass over the probe set; a part of the pass of all probe-set monitors"


class LikelihoodMonitor(ProbeSetMonitor):
    """Args:
    device: of the sums.
    look, every: as `ProbeSetMonitor`.
    """

    name: ClassVar[str] = "probe"
    catalogue: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "probe/entropy",
            "entropy of the next token at temperature 1, teacher-forced; compare over time and between runs",
            "nats, 0 to log of the vocabulary",
            "above 0.18 before RL (arXiv 2606.18487); a fall by more than half within 150 steps is a warning",
            _COST,
            _REDUCTION,
            "arXiv 2606.18487",
        ),
        Metric(
            "probe/nll",
            "negative log-likelihood of the probe set's responses",
            "nats a token, >= 0",
            "no threshold is known; near 0 before RL: the model has these responses by heart",
            _COST,
            _REDUCTION,
            "cross entropy, as SFT minimises it",
        ),
    )

    def __init__(self, device: torch.device, look: Look, every: int = 1) -> None:
        self._device = device
        super().__init__(look, every)

    def nothing(self) -> Sums:
        # Sums of negative log-likelihood and of entropy in nats, and the number of tokens.
        return {"sums": torch.zeros(3, dtype=torch.float64, device=self._device)}

    def saw(self, log_probs: Tensor, entropies: Tensor) -> None:
        """Both ``[n]``, in nats: of response tokens that no other rank counts."""
        nll = -log_probs.double().sum()
        self._tally["sums"] += torch.stack([nll, entropies.double().sum(), nll.new_tensor(len(log_probs))])

    def values(self, sums: Mapping[str, Tensor]) -> Values:
        nll, entropy, tokens = sums["sums"].tolist()
        return Values({"probe/entropy": entropy / tokens, "probe/nll": nll / tokens}) if tokens else Values()
