# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's platform interface for a machine without an accelerator. Chosen by ``VERL_PLATFORM=cpu`` only.

A "device" is a process: verl schedules workers by the Ray resource GPU, so a laptop job starts Ray with logical GPUs
(``ray_kwargs.ray_init.num_gpus``) and every worker computes on the CPU.
"""

import types
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import psutil
import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


class _DeviceId(str):
    """What ``get_device_id()`` returns: verl uses it both as ``tensor.to(id)`` and in ``f"{device_name}:{id}"``.

    An int would mean a CUDA device to the first, and "cpu" would give the invalid "cpu:cpu" in the second.
    """

    def __format__(self, format_spec: str) -> str:
        return "0"


CPU = _DeviceId("cpu")


class _Stream:
    """The CPU has one queue of work: waiting on it is done before it is asked for."""

    def wait_stream(self, stream: Any) -> None: ...
    def wait_event(self, event: Any) -> None: ...
    def synchronize(self) -> None: ...


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _zero(*args: Any, **kwargs: Any) -> int:
    return 0


def _device_module() -> types.ModuleType:
    """The part of the ``torch.cuda`` namespace that verl calls, for the CPU. Memory is this process's resident set."""
    module = types.ModuleType("rejuv_plugin_cpu_device")
    module.__dict__.update(
        is_available=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: CPU,
        get_device_name=lambda *_: "CPU",
        get_device_capability=lambda *_: (None, None),
        set_device=_nothing,
        synchronize=_nothing,
        empty_cache=_nothing,
        ipc_collect=_nothing,
        memory_allocated=_zero,
        memory_reserved=_zero,
        max_memory_allocated=lambda *_, **__: psutil.Process().memory_info().rss,
        max_memory_reserved=lambda *_, **__: psutil.Process().memory_info().rss,
        reset_peak_memory_stats=_nothing,
        set_per_process_memory_fraction=_nothing,
        mem_get_info=lambda *_: (psutil.virtual_memory().available, psutil.virtual_memory().total),
        get_rng_state=lambda *_: torch.get_rng_state(),
        set_rng_state=lambda state, *_: torch.set_rng_state(state),
        manual_seed=torch.manual_seed,
        manual_seed_all=torch.manual_seed,
        Stream=_Stream,
        Event=torch.cpu.Event if hasattr(torch.cpu, "Event") else None,
        current_stream=lambda *_: _Stream(),
        stream=lambda *_: nullcontext(),
    )
    return module


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _device_module()

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False  # never found by probing, so an accelerator is never passed over for the CPU

    def current_device(self) -> Any:
        return CPU

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "VERL_CPU_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> Any:
        return None
