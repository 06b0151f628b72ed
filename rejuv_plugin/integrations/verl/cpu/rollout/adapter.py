# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The worker side: sends the actor's weights to the replica's server."""

import os
from typing import Any

import ray
import torch
from verl.workers.rollout.base import BaseRollout

from rejuv_plugin.errors import InputError

from .buckets import Weights, buckets
from .replica import server_name
from .settings import require_one_process, rollout_dtype


class TransformersServerAdapter(BaseRollout):
    """Runs in every actor worker (hybrid mode) or checkpoint-engine worker (standalone); each has its own server.

    Args:
        config: rollout configuration.
        model_config: model configuration.
        device_mesh: not used.
        replica_rank: rank of the replica to send to; -1 for the worker's own rank.
    """

    is_leader_rank = True

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        require_one_process(self.config)
        self.replica_rank = int(os.environ["RANK"]) if replica_rank == -1 else replica_rank
        self._server: Any = None

    async def resume(self, tags: list[str]) -> None:
        """Nothing was released."""

    async def release(self) -> None:
        """Weights and caches are in ordinary memory and stay there."""

    @torch.no_grad()
    async def update_weights(
        self,
        weights: Weights,
        wire_format: str = "named_tensors",
        *,
        global_steps: int | None = None,
        peft_config: dict[str, Any] | None = None,
        base_sync_done: bool = True,
        **kwargs: Any,
    ) -> None:
        """Send an update, in parts of ``checkpoint_engine.update_weights_bucket_megabytes``.

        Args:
            weights: full tensors by name. All of them, or the adapter's alone when ``peft_config`` is given and
                ``base_sync_done``.
            wire_format: "named_tensors"; sparse differences are not supported.
            global_steps: version of the weights.
            peft_config: of the LoRA adapter, unless it is merged.
            base_sync_done: whether the server has the base weights of a LoRA model.
        """
        if wire_format != "named_tensors":
            raise InputError(
                "rollout.checkpoint_engine.backend", "one that sends whole tensors", wire_format, "use another backend"
            )
        adapter_config = peft_config if base_sync_done else None
        limit = self.config.checkpoint_engine.update_weights_bucket_megabytes << 20
        first = True
        async for bucket in buckets(weights, limit, rollout_dtype(self.config)):
            await self._send(bucket, first=first, last=False, peft_config=adapter_config)
            first = False
        # Only now is it known that the last part was the last.
        await self._send({}, first=first, last=True, peft_config=adapter_config, global_steps=global_steps)

    async def _send(self, bucket: dict[str, torch.Tensor], **kwargs: Any) -> None:
        if self._server is None:
            # The server starts after the worker.
            self._server = ray.get_actor(server_name(self.replica_rank))
        await self._server.load_weights.remote(bucket, **kwargs)
