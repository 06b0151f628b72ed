# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How widely the heads look."""

from collections.abc import Mapping
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
        super().__init__(look, every)

    def nothing(self) -> Sums:
        # By layer: sum and number of the entropies, then of the normalised ones.
        return {"sums": torch.zeros(self._layers, 4, dtype=torch.float64, device=self._device)}

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
        length = query.shape[1]
        at = torch.tensor(queries_of(length), device=query.device)[:, None]
        keys = torch.arange(length, device=query.device)
        visible = (keys <= at) & (keys > at - (window or length))
        entropy = attention_entropy(query[:, at[:, 0]], key, visible, scale, softcap)
        most = visible.sum(-1).double().log().expand_as(entropy)
        share = (entropy / most)[most > 0]
        found = [entropy.sum(), entropy.new_tensor(entropy.numel()), share.sum(), entropy.new_tensor(share.numel())]
        self._tally["sums"][layer] += torch.stack(found).to(self._device)

    def values(self, sums: Mapping[str, Tensor]) -> Values:
        rows = sums["sums"].tolist()
        plain = [total / count if count else nan for total, count, _, _ in rows]
        normalised = [total / count if count else nan for _, _, total, count in rows]
        return Values(layers={"probe/attention_entropy": plain, "probe/attention_entropy_normalised": normalised})
