# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How far the weights move, on a fixed sample of them: in a step, from the start of the run, and from the base model.

They are looked at where verl streams them to the rollout, as whole tensors under their HF names: so the sample, and
every number, is the same for every engine and at any world size. Of a tensor with more elements than the sample, sums
of squares are scaled up by its size. The relative error of a norm over n sampled elements is about
``sqrt((kurtosis - 1) / 4 n)`` where each element moves for itself. But they are taken in runs of 64 neighbours: where
those move together n counts for n / 64. Of embeddings of which a step updates 1 % of the rows the error is 0.8 at
n = 4096, where single elements would give 0.14: there steps can only be compared by the mean over many.

What is streamed in 16 bits is rounded: of an update far below the last bit few weights change, each by a whole bit, so
that its ratio is several times too large, and grows with the root of the update rather than with the update. It goes
by another name then, and nothing is judged by it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .layers import within_layer
from .metric import Metric
from .monitor import Monitor, Sums, Values
from .places import RUN, places

_PAIRS = ("update", "drift_start", "drift_base")
_ROUNDED = "update_ratio_rounded"
_EACH_STEP = "a gather of the sampled elements as they stream by; 30 bytes of their device for each"
_OVER = "root of the ratio of two sums of squares over all sampled weights"


def _metric(name: str, meaning: str, unit: str, healthy: str, source: str) -> Metric:
    return Metric(name, meaning, unit, healthy, _EACH_STEP, _OVER, source)


@dataclass(frozen=True)
class _Tensor:
    """What is streamed under a name."""

    elements: int
    at: Tensor
    """Its `places`, where it was streamed."""
    row: int
    """Its layer; the last row is everything outside the decoder layers."""


class WeightsMonitor(Monitor):
    """On the one rank whose stream is watched; on the others it has nothing to tell. The samples stay where the weights
    were streamed, some 30 bytes a sampled weight, so that only sums have to be waited for."""

    name = "weights"
    catalogue = (
        _metric(
            "update_ratio",
            "this step's change of the weights over the weights, ||w(t) - w(t-1)|| / ||w(t-1)||",
            "ratio, >= 0",
            "steady; with a larger gradient norm and a smaller update the model stalls",
            "arXiv 2606.09932, RL dynamics (there the mean absolute update)",
        ),
        _metric(
            _ROUNDED,
            "update_ratio of weights that are streamed in 16 bits (Megatron, merged LoRA, FSDP's model_dtype=bf16), in "
            "its place: several times too large, as it has their rounding in it",
            "ratio, >= 0",
            "no threshold is known; it grows more slowly than the update, so a stall hardly shows",
            "as update_ratio",
        ),
        _metric(
            "drift_start",
            "||w(t) - w(0)|| / ||w(0)||, w(0) the weights that RL started from; too large at first where they are "
            "streamed in 16 bits",
            "ratio, >= 0",
            "grows and slows down",
            "relative L2 distance",
        ),
        _metric(
            "drift_base",
            "||w(t) - b|| / ||b||, b the base model's weights; "
            "left out, with a line, where the node of the first rank does not have them",
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
        self._known: dict[str, _Tensor] = {}
        self._start: dict[str, Tensor] = {}
        self._restored = False
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
        if not self._restored:
            self._start = self._start or seen

    @property
    def start(self) -> dict[str, Tensor]:
        """The sample of the weights that RL started from, on the CPU, in their dtype; to be kept for a resumed run."""
        return {name: values.cpu() for name, values in self._start.items()}

    def restore(self, start: Mapping[str, Tensor]) -> None:
        """Go on from a `start` of an earlier process. Of one with another sample nothing is known, nor will be."""
        self._start, self._restored = dict(start), True

    def counts(self, name: str) -> bool:
        """Whether a streamed tensor is looked at."""
        return True

    def _sampled(self, name: str, tensor: Tensor) -> Tensor:
        if name not in self._known:
            at = places(name, tensor.numel(), self._wanted(name, tensor))
            base = self._base_of(name, tensor.numel(), at)
            self._base[name] = None if base is None else base.to(tensor.device)
            if len(self._start.get(name, at)) != len(at):
                # Of a run that began with another sample. What small tensors have in common is no part of the whole.
                self._start.clear()
                print("rejuvenation: drift_start is left out: the run began with another monitors.sample", flush=True)
            if name in self._start:
                self._start[name] = self._start[name].to(tensor.device)
            self._known[name] = _Tensor(tensor.numel(), at.to(tensor.device), self._row(name))
        return tensor.detach().reshape(-1)[self._known[name].at.to(tensor.device)]

    def _wanted(self, name: str, tensor: Tensor) -> int:
        """How many elements to sample. A layer's experts are many, and of one kind: some of each, be it a tensor of its
        own or a matrix in a stack of all."""
        if re.search(r"\.experts\.\d+\.", name):
            return RUN
        return max(self._sample, RUN * tensor.shape[0]) if ".experts." in name and tensor.dim() > 2 else self._sample

    def _row(self, name: str) -> int:
        within = within_layer(name)
        return within[0] if within and within[0] < self._layers else self._layers

    def sums(self) -> Sums:
        names = [f"{pair}_{part}" for pair in _PAIRS for part in ("moved", "of")]
        names += ["changed", "count", "rounded"]
        found = {name: torch.zeros(self._layers + 1, dtype=torch.float64) for name in names}
        # Where nothing was streamed since the last call, nothing is known: a rollout may be sent differences only.
        streamed, self._now = self._now, {}
        before, self._before = self._before or {}, streamed
        for pair, others in zip(_PAIRS, (before, self._start, self._base), strict=True):
            for alike in _alike(streamed, others):
                moved, of, changed = _compared([streamed[name] for name in alike], [others[name] for name in alike])
                known = [self._known[name] for name in alike]
                rows = torch.tensor([tensor.row for tensor in known])
                elements = torch.tensor([tensor.elements for tensor in known], dtype=torch.float64)
                weight = elements / len(streamed[alike[0]])
                found[f"{pair}_moved"].index_add_(0, rows, weight * moved)
                found[f"{pair}_of"].index_add_(0, rows, weight * of)
                if others is before:
                    found["changed"].index_add_(0, rows, weight * changed)
                    found["count"].index_add_(0, rows, elements)
                    short = torch.tensor([streamed[name].element_size() < 4 for name in alike], dtype=torch.float64)
                    found["rounded"].index_add_(0, rows, elements * short)
        return found

    def values(self, sums: Mapping[str, Tensor]) -> Values:
        found = Values()
        update = _ROUNDED if sums["rounded"].sum() > 0 else "update_ratio"
        for pair, name in zip(_PAIRS, (update, "drift_start", "drift_base"), strict=True):
            moved, of = sums[f"{pair}_moved"], sums[f"{pair}_of"]
            if of.sum() > 0:
                found.numbers[name] = float((moved.sum() / of.sum()).sqrt())
                found.layers[name] = (moved / of).sqrt()[:-1].tolist()
        if sums["count"].sum() > 0:
            found.numbers["changed_bits"] = float(sums["changed"].sum() / sums["count"].sum())
            found.layers["changed_bits"] = (sums["changed"] / sums["count"])[:-1].tolist()
        return found


def _alike(streamed: Mapping[str, Tensor], others: Mapping[str, Tensor | None]) -> list[list[str]]:
    """Names that are in both, by what `_compared` takes at once: a mixture of experts has tens of thousands."""
    groups: dict[tuple[int, torch.device], list[str]] = {}
    for name, now in streamed.items():
        if len(now) and others.get(name) is not None:
            groups.setdefault((len(now), now.device), []).append(name)
    return list(groups.values())


def _compared(now: list[Tensor], other: list[Tensor]) -> Tensor:
    """``[3, tensors]`` float64, on the CPU: of each tensor the sums of ``(now - other)**2`` and of ``other**2``, and
    how many elements are another bfloat16 number now. All are vectors of one length."""
    one = torch.cat(now).double().view(len(now), -1)
    two = torch.cat([values.to(one.device) for values in other]).double().view(len(now), -1)
    changed = (one.float().bfloat16() != two.float().bfloat16()).sum(-1, dtype=torch.float64)
    return torch.stack([(one - two).square_().sum(-1), two.square().sum(-1), changed]).cpu()
