# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How far the weights move, on a fixed sample of them: in a step, from the start of the run, and from the base model.

They are looked at where verl streams them to the rollout, as whole tensors under their HF names: so the sample, and
every number, is the same for every engine and at any world size. Of a tensor with more elements than the sample, sums
of squares are scaled up by its size; the relative error of a norm over n sampled elements is about
``sqrt((kurtosis - 1) / 4 n)``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from .layers import within_layer
from .monitor import Metric, Monitor, Sums, Values
from .places import places

_PAIRS = ("update", "drift_start", "drift_base")
_EACH_STEP = "a gather of the sampled elements as they stream by"
_OVER = "root of the ratio of two sums of squares over all sampled weights"


def _metric(name: str, meaning: str, unit: str, healthy: str, source: str) -> Metric:
    return Metric(name, meaning, unit, healthy, _EACH_STEP, _OVER, source)


class WeightsMonitor(Monitor):
    """On the one rank whose stream is watched; on the others it has nothing to tell."""

    name = "weights"
    catalogue = (
        _metric(
            "update_ratio",
            "this step's change of the weights over the weights, ||w(t) - w(t-1)|| / ||w(t-1)||",
            "ratio, >= 0",
            "steady; with a larger gradient norm and a smaller update the model stalls",
            "arXiv 2606.09932, RL dynamics (there the mean absolute update); of bfloat16 weights under Megatron",
        ),
        _metric(
            "drift_start",
            "||w(t) - w(0)|| / ||w(0)||, w(0) the weights that RL started from",
            "ratio, >= 0",
            "grows and slows down",
            "relative L2 distance",
        ),
        _metric(
            "drift_base",
            "||w(t) - b|| / ||b||, b the base model's weights; left out where the trainer's node cannot read them",
            "ratio, >= 0",
            "no threshold is known; the over-trained checkpoint starts with the larger one",
            "relative L2 distance, arXiv 2606.09932, step 1",
        ),
        Metric(
            "changed_bits",
            "share of weights whose bfloat16 bits changed in this step: what a bfloat16 rollout can notice",
            "share, 0 to 1",
            "above 0 while the learning rate is; small shares are usual at RL's learning rates",
            _EACH_STEP,
            "share of all sampled weights, each counted for as many as it stands for",
            "ours",
        ),
    )

    def __init__(self, layers: int, sample: int, base: Callable[[str, int, Tensor], Tensor | None]) -> None:
        """
        Args:
            layers: decoder layers of the model.
            sample: elements of a tensor, at most.
            base: ``(name, elements, places) -> [n] float64`` of the base model; None for a tensor that it lacks.
        """
        self._layers, self._sample, self._base_of = layers, sample, base
        self._elements: dict[str, int] = {}
        self._places: dict[str, Tensor] = {}
        self._start: dict[str, Tensor] = {}
        self._base: dict[str, Tensor | None] = {}
        self._before: dict[str, Tensor] | None = None
        self._now: dict[str, Tensor] = {}

    def watch(self, stream: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The same stream of whole tensors. A stream that is not read to its end was not seen."""
        seen: dict[str, Tensor] = {}
        for name, tensor in stream:
            if self.counts(name):
                seen[name] = self._sampled(name, tensor)
            yield name, tensor
        if self._before is None:
            # What the rollout first gets is what the first step changes; a resumed run has an older start.
            self._before = seen
        else:
            self._now = seen
        self._start = self._start or seen

    @property
    def start(self) -> dict[str, Tensor]:
        """The sample of the weights that RL started from, on the CPU, in their dtype; to be kept for a resumed run."""
        return self._start

    def restore(self, start: Mapping[str, Tensor]) -> None:
        """Go on from a `start` of an earlier process."""
        self._start = dict(start)

    def counts(self, name: str) -> bool:
        """Whether a streamed tensor is looked at."""
        return True

    def _sampled(self, name: str, tensor: Tensor) -> Tensor:
        if name not in self._places:
            self._elements[name] = tensor.numel()
            self._places[name] = places(name, tensor.numel(), self._sample)
        at = self._places[name].to(tensor.device)
        return tensor.detach().reshape(-1)[at].to("cpu", copy=True)

    def sums(self) -> Sums:
        shape = self._layers + 1  # the last is everything outside the decoder layers
        names = [f"{pair}_{part}" for pair in _PAIRS for part in ("moved", "of")]
        found = {name: torch.zeros(shape, dtype=torch.float64) for name in (*names, "changed", "count")}
        # Where nothing was streamed since the last call, nothing is known: a rollout may be sent differences only.
        streamed, self._now = self._now, {}
        before, self._before = self._before or {}, streamed
        for name, now in streamed.items():
            within = within_layer(name)
            row = within[0] if within and within[0] < self._layers else self._layers
            scale = self._elements[name] / max(1, len(now))
            for pair, other in zip(_PAIRS, (before.get(name), self._start.get(name), self._base_at(name)), strict=True):
                if other is not None:
                    found[f"{pair}_moved"][row] += scale * (now.double() - other.double()).square().sum()
                    found[f"{pair}_of"][row] += scale * other.double().square().sum()
            if name in before:
                found["changed"][row] += scale * (now.bfloat16() != before[name].bfloat16()).sum()
                found["count"][row] += self._elements[name]
        return found

    def _base_at(self, name: str) -> Tensor | None:
        if name not in self._base:
            self._base[name] = self._base_of(name, self._elements[name], self._places[name])
        return self._base[name]

    def values(self, sums: Mapping[str, Tensor]) -> Values:
        found = Values()
        for pair, name in zip(_PAIRS, ("update_ratio", "drift_start", "drift_base"), strict=True):
            moved, of = sums[f"{pair}_moved"], sums[f"{pair}_of"]
            if of.sum() > 0:
                found.numbers[name] = float((moved.sum() / of.sum()).sqrt())
                found.layers[name] = (moved / of).sqrt()[:-1].tolist()
        if sums["count"].sum() > 0:
            found.numbers["changed_bits"] = float(sums["changed"].sum() / sums["count"].sum())
            found.layers["changed_bits"] = (sums["changed"] / sums["count"])[:-1].tolist()
        return found
