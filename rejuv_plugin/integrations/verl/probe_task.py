# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Models are probed in a Ray task: on one of the cluster's GPUs, before the workers take them, and gone with its memory
when it ends."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ...config import ResetConfig
from ...errors import InputError

T = TypeVar("T")


def placed(settings: ResetConfig, trains_on: str, key: str) -> ResetConfig:
    """The settings with ``auto`` decided: ``cuda`` if the job trains on GPUs and the cluster has one.

    Args:
        settings: with ``device``.
        trains_on: verl's ``trainer.device``. Ray's count alone would not do: in laptop mode it has GPUs by name only.
        key: how errors name ``device``.

    Raises:
        InputError: named ``key``; ``cuda`` without a GPU.
    """
    has_gpu = trains_on == "cuda" and ray.cluster_resources().get("GPU", 0) >= 1
    if settings.device == "cuda" and not has_gpu:
        raise InputError(key, "a GPU in the Ray cluster", "a cluster without", f"set {key} to cpu or auto")
    if settings.device != "auto":
        return settings
    return replace(settings, device="cuda" if has_gpu else "cpu")


def run(function: Callable[..., T], *args: Any, device: str, **kwargs: Any) -> T:
    """Call ``function`` in a Ray task of its own and wait for the result; what it raises is raised here.

    The task prefers this node, which sees the same files. Where this one has no GPU it goes to another, and files must
    be on a disk that all nodes see, as for the workers that come later.

    Args:
        function: importable by name.
        args: its arguments; they are pickled.
        device: ``cuda`` asks for one GPU, ``cpu`` for one CPU.
        kwargs: as ``args``.
    """
    resources = {"num_gpus": 1, "num_cpus": 1} if device == "cuda" else {"num_cpus": 1}
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    # Not once more after a failure: the same would happen, after the same time.
    task = ray.remote(**resources, max_calls=1, max_retries=0, scheduling_strategy=here)(function)
    try:
        return ray.get(task.remote(*args, **kwargs))
    except ray.exceptions.RayTaskError as error:
        # The user's error is one line; Ray's adds the traceback of another process.
        raise error.cause if isinstance(error.cause, InputError) else error from None
