# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's view of one server: where it runs and what it is called."""

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from verl.workers.rollout.replica import RolloutReplica

from rejuv_plugin.errors import InputError

from . import ROLLOUT_NAME
from .server import TransformersServer
from .settings import require_one_process


def server_name(replica_rank: int, name_suffix: str = "") -> str:
    """Name of a replica's server among Ray's actors; the trailing 0 is the node rank, as in verl's own replicas."""
    return f"{ROLLOUT_NAME}_server_{replica_rank}_0{name_suffix}"


class TransformersReplica(RolloutReplica):
    """One server actor on the node of its worker, in verl's hybrid, colocated and standalone modes.

    Its address tells servers apart in the load balancer; nothing listens there, so what talks HTTP to a rollout (reward
    models) or wants log-probabilities of the prompt (distillation teachers) is refused.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        require_one_process(self.config)
        for role, refused in (("reward model", self.is_reward_model), ("teacher", self.is_teacher_model)):
            if refused:
                raise InputError(
                    "rollout.name", f"vllm or sglang for a {role}", ROLLOUT_NAME, "choose another rollout for it"
                )

    async def launch_servers(self) -> None:
        """Start the server actor and wait until its model is built."""
        node_id = await self.workers[0].__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())
        server = (
            ray.remote(TransformersServer)
            .options(
                name=server_name(self.replica_rank, self.name_suffix),
                # The worker already holds the CPU that both share.
                num_cpus=0,
                max_concurrency=self.max_concurrency,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node_id, soft=False),
            )
            .remote(self.config, self.model_config, self.replica_rank)
        )
        await server.ready.remote()
        self.servers = [server]
        self._server_handle = server
        self._server_address = server_name(self.replica_rank, self.name_suffix)
