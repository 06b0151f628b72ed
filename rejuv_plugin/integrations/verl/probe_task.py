# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Models are probed in a Ray task: on one of the cluster's GPUs, before the workers take them, and gone with its memory
when it ends."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import ray
import ray._private.state
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ...config import ResetConfig, TuningConfig
from ...errors import InputError

T = TypeVar("T")
Settings = TypeVar("Settings", ResetConfig, TuningConfig)

RESET_DEVICE = "rejuvenation.reset.device"
_SECONDS_TO_FREE = 120.0


def placed(settings: Settings, trains_on: str, key: str) -> Settings:
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
        got = "a cluster without" if trains_on == "cuda" else f"a job with trainer.device={trains_on}"
        raise InputError(key, "a GPU in the Ray cluster", got, f"set {key} to cpu or auto")
    if settings.device != "auto":
        return settings
    return replace(settings, device="cuda" if has_gpu else "cpu")


def run(function: Callable[..., T], *args: Any, device: str, device_key: str = RESET_DEVICE, **kwargs: Any) -> T:
    """Call ``function`` in a Ray task of its own and wait for the result; what it raises is raised here.

    The task prefers this node, which sees the same files. Where this one has no GPU it goes to another, and files must
    be on a disk that all nodes see, as for the workers that come later. At the end its GPU is free again.

    Args:
        function: importable by name.
        args: its arguments; they are pickled.
        device: ``cuda`` asks for one GPU; ``cpu`` for this node's free CPUs, one thread each, unless the environment
            has OMP_NUM_THREADS.
        device_key: how errors name ``device``.
        kwargs: as ``args``.

    Raises:
        InputError: as ``function``; also an input that the node of the task does not see.
    """
    node = ray.get_runtime_context().get_node_id()
    free = ray._private.state.available_resources_per_node()[node]
    gpus = ray.available_resources().get("GPU", 0)
    if device == "cuda":
        resources = {"num_gpus": 1, "num_cpus": 1}
        if gpus < 1:
            print("rejuvenation: waiting for a free GPU of the cluster to look at models on", flush=True)
    else:
        resources = {"num_cpus": max(1, min(os.cpu_count() or 1, int(free.get("CPU", 1))))}
    here = NodeAffinitySchedulingStrategy(node, soft=True)
    # Not once more after a failure: the same would happen, after the same time.
    task = ray.remote(**resources, max_calls=1, max_retries=0, scheduling_strategy=here)(_on_its_gpu)
    try:
        return ray.get(task.remote(function, *args, **kwargs))
    except ray.exceptions.RayTaskError as error:
        # The user's error is one line; Ray's adds the traceback of another process.
        if isinstance(error.cause, FileNotFoundError):
            raise InputError(
                device_key,
                "inputs on a disk that the node with the GPU sees",
                f"no {error.cause.filename} there",
                "put base, SFT checkpoint, data and cache on a shared disk, or set it to cpu",
            ) from None
        raise error.cause if isinstance(error.cause, InputError) else error from None
    finally:
        if device == "cuda":
            _wait_for_gpus(gpus)


def _on_its_gpu(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """With ``RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES`` a task sees all GPUs of its node, and may have but one."""
    if gpus := ray.get_gpu_ids():
        import torch

        if torch.cuda.device_count() > len(gpus):
            torch.cuda.set_device(int(gpus[0]))
    return function(*args, **kwargs)


def _wait_for_gpus(count: float) -> None:
    """Until Ray counts so many free GPUs again: verl counts them once, soon after, and gives up if one is missing."""
    end = time.monotonic() + _SECONDS_TO_FREE
    while ray.available_resources().get("GPU", 0) < count and time.monotonic() < end:
        time.sleep(0.1)
