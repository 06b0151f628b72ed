# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl checkpoint engine ``gloo``: weights from the trainer to standalone rollouts, over TCP, without a GPU.

verl's trainer with separate rollouts (``trainer_mode=separate_async``) needs a checkpoint engine, and all of
verl's own move device memory. Select this one with ``rollout.checkpoint_engine.backend=gloo`` and name this module as
``rollout.checkpoint_engine.custom_backend_module``.
"""

import io
from collections.abc import AsyncIterator, Generator
from datetime import timedelta
from typing import Any

import ray
import torch
from torch.distributed import ProcessGroupGloo, TCPStore
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry

from .buckets import buckets

_TIMEOUT = timedelta(minutes=10)


@CheckpointEngineRegistry.register("gloo")
class GlooCheckpointEngine(CheckpointEngine):
    """Actor rank 0 broadcasts to every rollout worker; the group is made anew for each update.

    Args:
        bucket_size: bytes per broadcast.
        is_master: this is actor rank 0.
    """

    def __init__(self, bucket_size: int, is_master: bool = False) -> None:
        self._bucket_size = bucket_size
        self._is_master = is_master
        self._store: TCPStore | None = None
        self._group: ProcessGroupGloo | None = None

    def prepare(self) -> tuple[str, int] | None:
        """Open the meeting point; its host and port on the master, None elsewhere."""
        if not self._is_master:
            return None
        host = ray.util.get_node_ip_address().strip("[]")
        self._store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=_TIMEOUT)
        return host, self._store.port

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[Any]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """Rank 0 sends and the rollout workers receive; -1 marks the other actor ranks, which stay outside."""
        world_size = 1 + rollout_world_size

        def arguments(ranks: list[int]) -> dict[str, list[Any]]:
            count = len(ranks)
            return {"rank": ranks, "world_size": [world_size] * count, "address": [metadata[0]] * count}

        return (
            arguments([0] + [-1] * (actor_wg_world_size - 1)),
            arguments(list(range(1, world_size))),
        )

    def init_process_group(self, rank: int, world_size: int, address: tuple[str, int]) -> None:
        """Join the group of this update."""
        if rank < 0:
            return
        if self._store is None:
            self._store = TCPStore(*address, is_master=False, timeout=_TIMEOUT)
        self._group = ProcessGroupGloo(self._store, rank, world_size, _TIMEOUT)

    def finalize(self) -> None:
        """Leave the group."""
        self._group = self._store = None

    @torch.no_grad()
    async def send_weights(
        self, weights: Generator[tuple[str, torch.Tensor], None, None], global_steps: int | None = None
    ) -> None:
        """Broadcast all weights; every actor rank walks the generator, whose gathers are collective."""
        if self._group is None:
            for _ in weights:
                pass
            return
        async for bucket in buckets(weights, self._bucket_size):
            self._broadcast(_to_bytes(bucket))
        self._broadcast(_to_bytes({}))

    async def receive_weights(self, global_steps: int | None = None) -> AsyncIterator[tuple[str, torch.Tensor]]:
        """Yield names and full tensors as they arrive."""
        while bucket := _from_bytes(self._broadcast(None)):
            for item in bucket.items():
                yield item

    def _broadcast(self, payload: torch.Tensor | None) -> torch.Tensor:
        """Send bytes (uint8 ``[length]``) from rank 0; the others pass None and get them."""
        if self._group is None:
            raise RuntimeError("init_process_group was not called")
        length = torch.tensor([0 if payload is None else payload.numel()])
        self._group.broadcast(length, 0).wait()
        if payload is None:
            payload = torch.empty(int(length), dtype=torch.uint8)
        self._group.broadcast(payload, 0).wait()
        return payload


def _to_bytes(bucket: dict[str, torch.Tensor]) -> torch.Tensor:
    buffer = io.BytesIO()
    torch.save(bucket, buffer)
    return torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)


def _from_bytes(payload: torch.Tensor) -> dict[str, torch.Tensor]:
    return torch.load(io.BytesIO(payload.numpy().tobytes()), weights_only=True)
