# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How widely the heads look."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import ClassVar

import torch
from torch import Tensor

from ..ops.attention import attention_entropy
from .metric import Metric
from .monitor import Sums, Values
from .probed import Look, ProbeSetMonitor

QUERIES = 4
_COST = "logits of four queries a sequence, layer and head"
_REDUCTION = (
    "mean over heads and over up to four evenly spaced queries of each sequence of the probe set, prompt included"
)
_SOURCE = "entropy of Vaswani et al., arXiv 1706.03762, Eq. 1; as a sign of collapse: Zhai et al., arXiv 2303.06296"


def queries_of(length: int) -> list[int]:
    """Positions in a sequence of ``length`` tokens: evenly spaced, the last one included."""
    return sorted({max(0, length * (i + 1) // QUERIES - 1) for i in range(QUERIES)})


@dataclass(frozen=True)
class _View:
    """Of the queries in a sequence of n tokens; made once for all layers and heads, so that none waits for the host."""

    at: Tensor
    """``[queries]`` int64."""
    visible: Tensor
    """``[queries, n]`` bool."""
    most: Tensor
    """``[queries]`` float64: log of how many keys each may see."""
    several: int
    """Queries that see more than one."""

    @classmethod
    def of(cls, length: int, window: int | None, device: torch.device) -> "_View":
        at, keys = torch.tensor(queries_of(length)), torch.arange(length)
        visible = (keys <= at[:, None]) & (keys > at[:, None] - (window or length))
        most = visible.sum(-1).double().log()
        return cls(at.to(device), visible.to(device), most.to(device), int((most > 0).sum()))


class AttentionMonitor(ProbeSetMonitor):
    """Entropy of the attention distribution of single queries, from queries and keys as the kernel gets them.

    Args:
        layers: decoder layers of the whole model.
        device: of the sums.
        look, every: as `ProbeSetMonitor`.
    """

    name: ClassVar[str] = "attention"
    catalogue: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "probe/attention_entropy",
            "entropy of a query's attention over the keys that it may see",
            "nats, 0 to log of the number of keys",
            "no threshold is known (arXiv 2606.24752: it does not track plasticity reliably); near 0: heads that stare",
            _COST,
            _REDUCTION,
            _SOURCE,
        ),
        Metric(
            "probe/attention_entropy_normalised",
            "the same over log of the number of keys; queries that see one key only are left out",
            "ratio, 0 to 1",
            "no threshold is known; comparable between sequences of different lengths",
            _COST,
            _REDUCTION,
            _SOURCE,
        ),
    )

    def __init__(self, layers: int, device: torch.device, look: Look, every: int = 1) -> None:
        self._layers, self._device = layers, device
        self._views: dict[tuple[int, int | None], _View] = {}
        super().__init__(look, every)

    def nothing(self) -> Sums:
        # By layer: sum and number of the entropies, then of the normalised ones.
        return {"sums": torch.zeros(self._layers, 4, dtype=torch.float64, device=self._device)}

    def forget(self) -> None:
        super().forget()
        self._views.clear()

    def saw(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        scale: float,
        window: int | None = None,
        softcap: float | None = None,
    ) -> None:
        """One sequence of n tokens in a layer.

        Args:
            layer: its number.
            query: ``[heads, n, d]``, any floating dtype: heads that no other rank counts.
            key: ``[groups, n, d]``: of these heads.
            scale, softcap: see `ops.attention.attention_entropy`.
            window: the last so many keys are visible, the query's own among them; all by default.
        """
        heads, length = query.shape[:2]
        view = self._views.get((length, window))
        if view is None:
            view = self._views[length, window] = _View.of(length, window, query.device)
        entropy = attention_entropy(query[:, view.at], key, view.visible, scale, softcap)
        share = torch.where(view.most > 0, entropy / view.most, 0)
        sums = self._tally["sums"][layer]
        sums[::2].add_(torch.stack([entropy.sum(), share.sum()]).to(self._device))
        sums[1].add_(entropy.numel())
        sums[3].add_(heads * view.several)

    def values(self, sums: Mapping[str, Tensor]) -> Values:
        rows = sums["sums"].tolist()
        plain = [total / count if count else nan for total, count, _, _ in rows]
        normalised = [total / count if count else nan for _, _, total, count in rows]
        return Values(layers={"probe/attention_entropy": plain, "probe/attention_entropy_normalised": normalised})
