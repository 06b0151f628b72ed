# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The probe set through an engine's model, by verl's own forward and loss."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils.device import get_device_id
from verl.workers.utils.losses import sft_loss

from ....probe.dialogue import Example
from .probe_batch import batch_of
from .sites import NOBODY, Hooks, Sites, Watched
from .unchanged import unchanged

Outputs = Callable[[dict[str, Tensor], TensorDict], None]
"""Gets verl's model outputs and the micro-batch, where this rank's tokens are no other rank's too. Must not raise."""


@dataclass(frozen=True)
class ProbeRun:
    """Of one engine, the same on all ranks."""

    engine: Any
    """verl's."""
    sites: Sites
    """Of the engine."""
    examples: Sequence[Example]
    """Of the probe set."""
    device: torch.device
    """Of the engine."""

    def run(
        self, outputs: Outputs, watched: Watched = NOBODY, *, entropies: bool = False, backward: bool = False
    ) -> None:
        """A pass over the whole probe set, of the mean NLL of its response tokens. A collective, to be called in a mode
        of the engine. With ``backward``, gradients are left behind.

        Args:
            outputs: looks at the model's outputs.
            watched: monitors that look into the model.
            entropies: let them be among the outputs.
            backward: differentiate, in training mode.
        """
        engine, sites = self.engine, self.sites
        options = sites.options | {"calculate_entropy": entropies}
        rank, ranks = engine.get_data_parallel_rank(), engine.get_data_parallel_size()
        data, marks = batch_of(self.examples, rank, ranks, sites.multiple, options)

        def loss(model_output: dict[str, Tensor], data: TensorDict, dp_group: Any = None) -> Any:
            if engine.is_mp_src_rank_with_outputs():
                outputs(model_output, data)
            return sft_loss(None, model_output, data, dp_group)

        with unchanged(sites.modules, self.device), ExitStack() as stack:
            layouts = sites.layouts([micro.to(get_device_id()) for micro in marks])
            sites.watch(Hooks(layouts, stack), watched)
            if backward:
                engine.optimizer_zero_grad()
                engine.forward_backward_batch(data, loss, forward_only=False)
            else:
                engine.infer_batch(data, loss_function=loss)


def of_responses(output: Tensor, data: TensorDict) -> Tensor:
    """``[n]``: of an output for each token of a micro-batch, those about response tokens that count."""
    # What is at a position is about the next token.
    return output.detach().values()[torch.roll(data["loss_mask"].values(), -1).bool()]
