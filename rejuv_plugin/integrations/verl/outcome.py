# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What was done to a job before its trainer is built, and what is left to do while it is."""

from dataclasses import dataclass
from typing import Any

from ...neurons.reset_set import ResetSet


@dataclass
class Outcome:
    """Of disk mode, where all is done; worker mode (`worker_mode.mode`) extends it."""

    key: str | None
    """Content key of the weights that training starts from; None until `settle` if workers find the neurons."""
    ref: str
    """The setting ``rejuvenation.ref``."""
    metrics: dict[str, float]
    """The summary under verl's metric names, for the step that training starts from."""
    keep: ResetSet | None = None
    """A reset set that was found: to be kept in each checkpoint, as it might not be found again."""
    tuned: dict[str, Any] | None = None
    """How alpha was chosen, if it was: ``choice`` of `tune.run.tune`."""

    def workers(self, role_worker_mapping: dict[Any, Any]) -> dict[Any, Any]:
        """verl's ``role -> Ray actor class`` as this job needs it; the argument is not changed."""
        if self.ref != "sft":
            return role_worker_mapping
        from .reference import with_sft_reference

        return with_sft_reference(role_worker_mapping)

    def settle(self, trainer: Any) -> None:
        """Called when all workers have their models, before a checkpoint is loaded and before the first rollout."""
