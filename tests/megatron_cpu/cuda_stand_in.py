# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A CUDA device that is the CPU. To be imported before megatron, in a process that does nothing else.

megatron-core asks for its device by name ("cuda"), by ``torch.cuda`` calls and by the name of a tensor's type. Each is
answered here; the values it computes are the CPU's.
"""

import os
from types import SimpleNamespace
from typing import Any

# Before megatron's jit_fuser, which is torch.compile: its C++ would take longer than all tests.
os.environ["TORCHDYNAMO_DISABLE"] = "1"
os.environ["VERL_PLATFORM"] = "cuda_stand_in"

import torch
import torch.distributed as dist
from torch.overrides import TorchFunctionMode

from rejuv_plugin.integrations.verl.cpu.platform import PlatformCPU, PlatformRegistry

# What a CPU has no kernels for, of megatron-core's `TransformerConfig`; fused for speed only.
UNFUSED = {
    "use_cpu_initialization": True,
    "gradient_accumulation_fusion": False,
    "apply_rope_fusion": False,
    "moe_permute_fusion": False,
}

assert not torch.cuda.is_available(), "the stand-in would hide this machine's GPU"


@PlatformRegistry.register(platform="cuda_stand_in")
class CudaOnCpu(PlatformCPU):
    """The laptop's platform under the name that verl's Megatron engine is registered for.

    With a device that is not called "cpu", verl's offload takes the way that it takes on a GPU.
    """

    device_name = "cuda"
    vendor_name = "nvidia"


class CudaIsCpu(TorchFunctionMode):
    """Of the thread that enters it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.Tensor.cuda, torch.Tensor.pin_memory):
            return args[0]
        if func is torch.Tensor.record_stream:
            return None
        if func is torch.Tensor.type and len(args) == 1 and not kwargs:
            # megatron's optimizers sort parameters by it, and take only CUDA's.
            return func(*args).replace("torch.", "torch.cuda.", 1)
        if func is torch.Tensor.to:
            args = tuple("cpu" if _is_cuda(arg) else arg for arg in args)
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = "cpu"
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        return func(*args, **kwargs)


class _Stream(type(PlatformCPU.device_module.current_stream())):
    def record_event(self, event: Any = None) -> Any:
        return event or torch.cpu.Event()

    def record_stream(self) -> None: ...


def _is_cuda(device: Any) -> bool:
    return isinstance(device, str | torch.device) and str(device).startswith("cuda")


def _answer_for_cuda() -> None:
    own = {
        # torch.manual_seed itself calls torch.cuda.manual_seed_all.
        "manual_seed": lambda seed: torch.default_generator.manual_seed(int(seed)),
        "manual_seed_all": lambda seed: torch.default_generator.manual_seed(int(seed)),
        "get_device_capability": lambda *_: (8, 0),
        "get_device_properties": lambda *_: SimpleNamespace(major=8, minor=0, multi_processor_count=1),
        "Stream": _Stream,
        "current_stream": lambda *_: _Stream(),
        "default_stream": lambda *_: _Stream(),
    }
    # Who asks whether there is a GPU gets the truth, as vendor-neutral code should go its CPU way.
    truth = {"is_available", "device_count"}
    for name, value in {**vars(PlatformCPU.device_module), **own}.items():
        if not name.startswith("__") and name not in truth:
            setattr(torch.cuda, name, value)
    torch.cuda.nvtx.range_push = torch.cuda.nvtx.range_pop = lambda *_: None


def _scatter_what_is_contiguous() -> None:
    """gloo scatters a strided tensor's storage as it lies, without an error; megatron-bridge 0.3.1 gives it columns."""
    scatter = dist.scatter

    def contiguous(tensor: Any, scatter_list: Any = None, *args: Any, **kwargs: Any) -> Any:
        return scatter(tensor, scatter_list and [part.contiguous() for part in scatter_list], *args, **kwargs)

    dist.scatter = contiguous


def _megatron_random_state() -> None:
    # These two reach for torch.cuda's generators themselves.
    from megatron.core.tensor_parallel import random

    random._get_cuda_rng_state = lambda *_, **__: torch.get_rng_state()
    random._set_cuda_rng_state = lambda state, *_, **__: torch.set_rng_state(state)


_answer_for_cuda()
_scatter_what_is_contiguous()
CudaIsCpu().__enter__()
_megatron_random_state()
