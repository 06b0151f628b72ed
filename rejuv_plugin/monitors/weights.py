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
from .metric import Metric
from .monitor import Monitor, Sums, Values
from .places import RUN, places

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
            # A layer's experts are many, and of one kind.
            self._places[name] = places(name, tensor.numel(), RUN if ".experts." in name else self._sample)
        at = self._places[name].to(tensor.device)
        return tensor.detach().reshape(-1)[at].to("cpu", copy=True)

    def sums(self) -> Sums:
        shape = self._layers + 1  # the last is everything outside the decoder layers
        names = [f"{pair}_{part}" for pair in _PAIRS for part in ("moved", "of")]
        found = {name: torch.zeros(shape, dtype=torch.float64) for name in (*names, "changed", "count")}
        # Where nothing was streamed since the last call, nothing is known: a rollout may be sent differences only.
        streamed, self._now = self._now, {}
        before, self._before = self._before or {}, streamed
        if not streamed:
            return found
        for name in streamed.keys() - self._base.keys():
            self._base[name] = self._base_of(name, self._elements[name], self._places[name])
        # One vector of all: a mixture of experts has tens of thousands of tensors.
        sizes = torch.tensor([len(values) for values in streamed.values()])
        rows = torch.tensor([self._row(name) for name in streamed]).repeat_interleave(sizes)
        scale = torch.tensor([self._elements[n] / max(1, len(v)) for n, v in streamed.items()], dtype=torch.float64)
        scale = scale.repeat_interleave(sizes)
        now = torch.cat([values.double() for values in streamed.values()])
        for pair, others in zip(_PAIRS, (before, self._start, self._base), strict=True):
            other, known = _beside(streamed, others)
            at, weight = rows[known], scale[known]
            found[f"{pair}_moved"].index_add_(0, at, weight * (now[known] - other).square())
            found[f"{pair}_of"].index_add_(0, at, weight * other.square())
            if others is before:
                changed = now[known].float().bfloat16() != other.float().bfloat16()
                found["changed"].index_add_(0, at, weight * changed)
                found["count"].index_add_(0, at, weight)
        return found

    def _row(self, name: str) -> int:
        within = within_layer(name)
        return within[0] if within and within[0] < self._layers else self._layers

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


def _beside(streamed: Mapping[str, Tensor], others: Mapping[str, Tensor | None]) -> tuple[Tensor, Tensor]:
    """Those of ``others`` that are there, in one vector, float64; and where their elements are among the streamed ones,
    ``[n]`` bool."""
    there = [others.get(name) for name in streamed]
    known = [torch.full((len(now),), v is not None) for now, v in zip(streamed.values(), there, strict=True)]
    values = [value.double() for value in there if value is not None]
    return torch.cat(values) if values else torch.zeros(0, dtype=torch.float64), torch.cat(known)
