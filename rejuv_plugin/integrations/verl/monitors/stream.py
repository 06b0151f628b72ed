# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The weights that an engine streams to the rollout, watched on one rank."""

import platform
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from ....checkpoint.compatible import HEADS
from ....checkpoint.layout import read_checkpoint
from ....errors import InputError
from ....monitors import places
from ....monitors.monitor import Sums
from ....monitors.weights import WeightsMonitor
from ..engine import number_of_layers
from .guarded import Guard


class StreamedWeights(WeightsMonitor):
    """Of one engine. Only its first rank samples; the sums of the others are zero."""

    def __init__(self, engine: Any, sample: int, base: Path | None) -> None:
        self.here = dist.get_rank() == 0
        """Whether this rank samples."""
        super().__init__(number_of_layers(engine), sample, _base(base if self.here else None))
        # As transformers ties: by the whole model's flag, which that of its language model may lack or contradict.
        self._tied = bool(getattr(engine.model_config.hf_config, "tie_word_embeddings", False))
        self._guard, self._off = Guard(), False
        if getattr(engine, "_qat_enabled", False):
            self._guard.error = NotImplementedError("quantised weights are streamed (QAT), not those that are trained")
        engine.get_per_tensor_param = self._watched(engine.get_per_tensor_param)
        if differences := getattr(engine, "get_per_tensor_param_delta_shard", None):
            engine.get_per_tensor_param_delta_shard = self._unwatched(differences)

    def _watched(self, stream_of: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(stream_of)
        def stream(*args: Any, **kwargs: Any) -> Any:
            weights, peft = stream_of(*args, **kwargs)
            if peft is not None:
                self._guard.error = NotImplementedError(
                    "a LoRA adapter is streamed, not weights that the base model has too"
                )
            elif self.here and not (self._off or self._guard.error):
                weights = self.watch(weights)
            return weights, peft

        return stream

    def _unwatched(self, stream_of: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(stream_of)
        def stream(*args: Any, **kwargs: Any) -> Any:
            self._guard.error = NotImplementedError("what changed is streamed (delta_sharded), not the weights")
            return stream_of(*args, **kwargs)

        return stream

    def turn_off(self) -> None:
        self._off = True

    def counts(self, name: str) -> bool:
        # Streamed under both names, but one weight.
        return not (self._tied and name.partition(".")[0] in HEADS)

    def _sampled(self, name: str, tensor: Tensor) -> Tensor:
        # In the middle of verl's own loop, which must go on.
        with self._guard:
            return super()._sampled(name, tensor)
        return tensor.new_empty(0)

    def sums(self) -> Sums:
        self._guard.check()
        return super().sums()


def _base(path: Path | None) -> Callable[[str, int, Tensor], Tensor | None]:
    """How to read a sample of the base model; a directory that is not to be had here has no tensor. Nothing is
    downloaded: hundreds of workers would."""
    nothing = lambda name, elements, at: None  # noqa: E731
    if path is None:
        return nothing
    try:
        if not path.is_dir():
            raise FileNotFoundError(f"{path} is not on this node, {platform.node()}")
        checkpoint = read_checkpoint(str(path), "rejuvenation.base_path")
    except (InputError, OSError) as error:
        print(f"rejuvenation: no drift_base: {error}", flush=True)
        return nothing

    def sampled(name: str, elements: int, at: Tensor) -> Tensor | None:
        info = checkpoint.tensors.get(name)
        if info is None or info.elements != elements:
            return None
        return places.read(Path(checkpoint.root), info, at)

    return sampled
