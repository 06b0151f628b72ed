# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Methods that must see a whole tensor: made when its first elements are asked for, and kept until the last are."""

from threading import Lock
from typing import TYPE_CHECKING

from .elements import read_elements
from .plan import Fuse, Plan

if TYPE_CHECKING:
    import torch

_one_at_a_time = Lock()
"""For memory, and because mergekit draws from torch's random numbers, of which a process has one stream."""


class Whole:
    """One tensor of a plan, to be handed out in parts, each element once, to any number of threads."""

    def __init__(self, plan: Plan, operation: Fuse, name: str) -> None:
        """
        Args:
            plan: of two full checkpoints, with a method that is not linear.
            operation: the tensor's.
            name: names its random numbers.
        """
        self._fusion, self._operation, self._name = plan.fusion, operation, name
        self._base = plan.base.root / operation.base.file
        self._sft = plan.sft.root / operation.sft.file
        self._values: torch.Tensor | None = None
        self._left = operation.common
        self._lock = Lock()

    def __call__(self, first: int, base: "torch.Tensor", sft: "torch.Tensor", alpha: float) -> "torch.Tensor":
        """``[n]`` float64, new: what `ops.merge` gives for the flat elements from ``first`` on; base and SFT are only
        looked at for how many."""
        with self._lock:
            if self._values is None:
                with _one_at_a_time:
                    self._values = self._made(alpha)
            part = self._values[first : first + len(sft)].clone()
            self._left -= len(sft)
            if self._left <= 0:
                self._values, self._left = None, self._operation.common
        return part

    def _made(self, alpha: float) -> "torch.Tensor":
        from ..ops.merge import sparse_task_vector

        count, fusion = self._operation.common, self._fusion
        base = read_elements(self._base, self._operation.base, 0, count)
        sft = read_elements(self._sft, self._operation.sft, 0, count)
        return sparse_task_vector(base, sft, alpha, fusion.method, fusion.density, fusion.noise_seed, self._name)
