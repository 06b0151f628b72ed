# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``rejuvenation.ref=sft``: the KL reference is the SFT checkpoint, while the actor starts from the rejuvenated one.

verl builds the reference from a copy of the actor's model config, so without this it is the rejuvenated checkpoint
(the paper's setting, and our default).
"""

from functools import partial
from typing import Any

from verl.single_controller.base.decorator import Dispatch, register
from verl.utils.fs import copy_to_local
from verl.workers.engine_workers import ActorRolloutRefWorker

from .workers import extended


class SFTReferenceMixin:
    """Placed before an `ActorRolloutRefWorker`; reads the path at ``actor_rollout_ref.rejuvenation.sft_path``."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        # An instance attribute hides the class attribute that verl's init_model calls to build the reference.
        self.ref_worker_cls = partial(_build_from, self.ref_worker_cls, self.config.rejuvenation.sft_path)
        super().init_model()  # type: ignore[misc]


def with_sft_reference(role_worker_mapping: dict[Any, Any]) -> dict[Any, Any]:
    """Return the mapping with every actor/reference worker class extended by `SFTReferenceMixin`.

    Args:
        role_worker_mapping: verl's ``role -> Ray actor class``; not changed. Other workers (the critic) stay.
    """
    return extended(role_worker_mapping, {ActorRolloutRefWorker: SFTReferenceMixin})


def _build_from(worker_cls: Any, path: str, config: Any) -> Any:
    config.model_config.local_path = copy_to_local(path, use_shm=config.model_config.use_shm)
    return worker_cls(config=config)
