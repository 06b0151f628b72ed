# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Whether all nodes of a Ray cluster see what one of them writes to a directory."""

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..checkpoint.cache import make_directory
from ..errors import InputError


def check_shared(directory: str | Path, nodes: Mapping[str, str], key: str) -> None:
    """Write a file and open it on each node, in a task that takes no processor.

    Args:
        directory: made if it is not there; the file disappears again.
        nodes: from `ray_shards.nodes`.
        key: how errors name ``directory``.

    Raises:
        InputError: named ``key``; it cannot be made, or a node does not see it.
    """
    with NamedTemporaryFile(dir=make_directory(directory, key), prefix=".seen-") as file:
        os.fchmod(file.fileno(), 0o644)  # a node may run under another user, who could read what is made here
        answers = {node: _ask(node, file.name) for node in nodes}
        for node, answer in answers.items():
            try:
                seen = ray.get(answer)
            except ray.exceptions.RayError:
                continue  # The node is lost, or cannot run anything: that is for the job to find out.
            if not seen:
                raise InputError(
                    key,
                    "a disk that all nodes see",
                    f"node {nodes[node]}, which does not see {Path(file.name).parent} as it is here",
                    "set it to a shared disk, or rejuvenation.mode=worker",
                )


def _ask(node: str, path: str) -> ray.ObjectRef:
    # Within a function it travels by value: a node that only rolls out may be without the plugin.
    def sees(path: str) -> bool:
        try:
            with open(path, "rb"):
                return True
        except OSError:
            return False

    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0)(sees).options(scheduling_strategy=here).remote(path)
