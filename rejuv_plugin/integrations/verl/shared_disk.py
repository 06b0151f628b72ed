# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Whether all nodes of a Ray cluster see a checkpoint that one of them has made."""

from collections.abc import Mapping
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ...checkpoint.layout import MANIFEST
from ...errors import InputError


def nodes() -> dict[str, str]:
    """Addresses of the nodes that verl may start a worker on, by their ids; empty if this process is in no cluster."""
    if not ray.is_initialized():
        return {}
    with_processor = (node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0)
    return {node["NodeID"]: node["NodeManagerAddress"] for node in with_processor}


def check_seen(path: Path, addresses: Mapping[str, str], key: str) -> None:
    """Open the manifest on each node, in a task that takes no processor.

    Args:
        path: the checkpoint's directory.
        addresses: of the nodes, by their ids.
        key: how errors name the cache.

    Raises:
        InputError: named ``key``; a node does not see it.
    """

    # Within this function it travels by value: in disk mode a node that only rolls out may be without the plugin.
    def sees(manifest: str) -> bool:
        try:
            with open(manifest, "rb"):
                return True
        except OSError:
            return False

    task = ray.remote(num_cpus=0)(sees)
    answers = {
        node: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            str(path / MANIFEST)
        )
        for node in addresses
    }
    for node, answer in answers.items():
        try:
            seen = ray.get(answer)
        except ray.exceptions.RayError:
            continue  # The node is lost, or cannot run anything: that is verl's to find out.
        if not seen:
            raise InputError(
                key,
                "a disk that all nodes see",
                f"node {addresses[node]}, which does not see {path}",
                "set it to a shared disk, or rejuvenation.mode=worker",
            )
