# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the neurons of the MLPs still say something (ReDo) and still learn something (GraMa)."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .metric import Metric
from .monitor import Sums, Values
from .probed import Look, ProbeSetMonitor

_QUANTILES = {"p01": 0.01, "p05": 0.05, "p50": 0.5}
_THRESHOLDS = (0.025, 0.1)
_SCORES = {
    "redo": ("activation", "Sokar et al., arXiv 2302.12902, Eq. 1"),
    "grama": ("gradient of the probe set's mean NLL with respect to the activation", "arXiv 2505.24061"),
}
_REDUCTION = "mean over all prompt and response tokens of the probe set, then over the neurons of a layer"
_COST = "a forward and backward pass over the probe set; all_reduce of 2 numbers a neuron"


def _metrics(score: str, of: str, source: str) -> list[Metric]:
    about = f"score of a neuron: mean absolute {of}, over that of the layer's average neuron"
    quantiles = [
        Metric(
            f"probe/{score}_{name}",
            f"quantile {q} over a layer's neurons of the {about}",
            "ratio, >= 0",
            "no threshold is known; a steady fall says that some neurons fall silent",
            _COST,
            _REDUCTION,
            source,
        )
        for name, q in _QUANTILES.items()
    ]
    return quantiles + [
        Metric(
            f"probe/{score}_dormant_{tau}",
            f"share of a layer's neurons whose {score} score is at most {tau}",
            "share, 0 to 1",
            "about 0 in every SiLU-gated MLP, plastic or not: a constant 0 is no good news, read the quantiles",
            _COST,
            _REDUCTION,
            source,
        )
        for tau in _THRESHOLDS
    ]


class NeuronMonitor(ProbeSetMonitor):
    """A neuron is an input h_i of the MLP's down projection: gate times up; an expert's, times the router's weight too,
    and 0 for tokens that it does not get. Its score is ``s_i = E|h_i| / mean_k E|h_k|`` over the k neurons of its
    layer, of all experts together; with ``|dL/dh_i|`` in place of ``|h_i|`` it is GraMa's, L the mean NLL of the
    responses. The expectations' denominators cancel, and so does any scale of the loss. Experts that every token gets
    beside routed ones ("shared" experts) are not looked at.

    Args:
        layers: decoder layers of the whole model.
        width: the most neurons that a layer has.
        device: of the sums.
        look, every: as `ProbeSetMonitor`.
    """

    name: ClassVar[str] = "neurons"
    catalogue: ClassVar[tuple[Metric, ...]] = tuple(
        metric for score, (of, source) in _SCORES.items() for metric in _metrics(score, of, source)
    )

    def __init__(self, layers: int, width: int, device: torch.device, look: Look, every: int = 1) -> None:
        self._shape, self._device = (layers, width), device
        super().__init__(look, every)

    def nothing(self) -> Sums:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=self._device)

        return {score: zeros(*self._shape) for score in _SCORES} | {"width": zeros(self._shape[0], 2)}

    def has(self, layer: int, width: int) -> None:
        """This rank has (some of) the ``width`` neurons of a layer."""
        for column, number in enumerate((width, 1)):
            self._tally["width"][layer, column].add_(number)

    def saw(self, score: str, layer: int, values: Tensor, first: int = 0) -> None:
        """Activations (``redo``) or gradients with respect to them (``grama``) of a layer.

        Args:
            score: which.
            layer: its number.
            values: ``[tokens, n]``, any floating dtype; each token and neuron on one rank only.
            first: number of the first of these n neurons in the layer.
        """
        total = values.abs().sum(0, dtype=torch.float64)
        self._tally[score][layer, first : first + len(total)] += total

    def values(self, sums: Mapping[str, Tensor]) -> Values:
        layers: dict[str, list[float]] = {metric.name: [] for metric in self.catalogue}
        widths = [round(total / ranks) if ranks else 0 for total, ranks in sums["width"].tolist()]
        for score in _SCORES:
            for total, width in zip(sums[score].cpu().numpy(), widths, strict=True):
                for name, value in _summary(total[:width]).items():
                    layers[f"probe/{score}_{name}"].append(value)
        return Values(layers=layers)


def _summary(total: np.ndarray) -> dict[str, float]:
    mean = total.mean() if len(total) else 0.0
    if not (np.isfinite(mean) and mean > 0):
        return {name: float("nan") for name in (*_QUANTILES, *(f"dormant_{tau}" for tau in _THRESHOLDS))}
    scores = total / mean
    found = {name: float(np.quantile(scores, q)) for name, q in _QUANTILES.items()}
    return found | {f"dormant_{tau}": float((scores <= tau).mean()) for tau in _THRESHOLDS}
