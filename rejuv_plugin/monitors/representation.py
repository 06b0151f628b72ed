# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How many directions of the residual stream the model uses."""

from collections.abc import Mapping
from math import nan
from typing import ClassVar

import torch
from torch import Tensor

from ..ops.spectrum import effective_rank, singular_values, stable_rank, threshold_rank
from .metric import Metric
from .monitor import Sums, Values
from .probed import Look, ProbeSetMonitor

_RANKS = {
    "effective_rank": (effective_rank, "exp of the entropy of the singular values", "Roy and Vetterli, EUSIPCO 2007"),
    "threshold_rank": (threshold_rank, "singular values that make 99 % of their sum", "srank, arXiv 2010.14498"),
    "stable_rank": (stable_rank, "squared Frobenius norm over squared spectral norm", "Rudelson and Vershynin, 2007"),
}
_COST = "four float64 matrices of hidden size squared on every rank, their all_reduce and eigenvalues"
_LOOKS = 4


def layers_to_look_at(layers: int) -> tuple[int, ...]:
    """The last layers of the four quarters of a model, ascending."""
    return tuple(sorted({max(0, layers * quarter // _LOOKS - 1) for quarter in range(1, _LOOKS + 1)}))


class RankMonitor(ProbeSetMonitor):
    """Of the matrix A, ``[tokens, hidden]``, that a decoder layer leaves in the residual stream, **not centred**: its
    mean counts as a direction. Its singular values come from the Gram matrix ``A.T @ A``, summed over ranks in float64.

    Args:
        layers: decoder layers of the whole model.
        hidden: size of the residual stream.
        device: of the sums.
        look, every: as `ProbeSetMonitor`.
    """

    name: ClassVar[str] = "ranks"
    catalogue: ClassVar[tuple[Metric, ...]] = (
        *(
            Metric(
                f"probe/{name}",
                f"{meaning}, of the uncentred residual stream after the last layer of each quarter of the model",
                "directions, 1 to the lesser of tokens and hidden size",
                "no threshold is known; compare over time, and only where probe/rank_rows_per_feature is the same, "
                "best at least 1: with fewer tokens than features it is bounded by the tokens",
                _COST,
                "over all prompt and response tokens of the probe set",
                source,
            )
            for name, (_, meaning, source) in _RANKS.items()
        ),
        Metric(
            "probe/rank_rows_per_feature",
            "tokens of the probe set over hidden size",
            "ratio, > 0",
            "at least 1, better 2; below 1 the three ranks say as much about the probe set's size as about the model",
            "none",
            "sum over ranks",
            "Roy and Vetterli, EUSIPCO 2007",
        ),
    )

    def __init__(self, layers: int, hidden: int, device: torch.device, look: Look, every: int = 1) -> None:
        self._layers, self._hidden, self._device = layers, hidden, device
        self.places = {layer: place for place, layer in enumerate(layers_to_look_at(layers))}
        """By layer that is looked at, its place in the sums."""
        super().__init__(look, every)

    def nothing(self) -> Sums:
        looks, hidden = len(self.places), self._hidden
        return {
            "gram": torch.zeros(looks, hidden, hidden, dtype=torch.float64, device=self._device),
            "rows": torch.zeros(looks, dtype=torch.float64, device=self._device),
        }

    def saw(self, layer: int, rows: Tensor) -> None:
        """``[n, hidden]``, any floating dtype: what one of the `places` left for tokens that no other rank counts."""
        # In float64: what float32 rounds off would look like directions of its own.
        rows = rows.double()
        self._tally["gram"][self.places[layer]].addmm_(rows.T, rows)
        self._tally["rows"][self.places[layer]] += len(rows)

    def values(self, sums: Mapping[str, Tensor]) -> Values:
        found = {name: [nan] * self._layers for name in _RANKS}
        for layer, place in self.places.items():
            gram = sums["gram"][place]
            if not (gram.isfinite().all() and gram.diagonal().sum() > 0):
                continue
            sigma = singular_values(gram)
            for name, (rank, _, _) in _RANKS.items():
                found[name][layer] = float(rank(sigma))
        layers = {f"probe/{name}": values for name, values in found.items()}
        return Values({"probe/rank_rows_per_feature": float(sums["rows"].max()) / self._hidden}, layers)
