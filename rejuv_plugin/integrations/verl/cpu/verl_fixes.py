# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The places where verl 0.9 and torch 2.13 take for granted that the device is not the CPU."""

import functools
import os
from types import ModuleType
from typing import Any


def process_group_without_duplicate_backend(distributed: ModuleType) -> None:
    """verl asks for the backend ``cpu:gloo,<device>:<backend>``; torch rejects ``cpu`` named twice."""
    original = distributed.initialize_global_process_group_ray

    @functools.wraps(original)
    def initialize(timeout_second: float | None = None, backend: str | None = None) -> Any:
        return original(timeout_second=timeout_second, backend=backend or "cpu:gloo")

    def initialize_under_torchrun(timeout_second: float = 36000) -> tuple[int, ...]:
        initialize(timeout_second)
        return tuple(int(os.environ[name]) for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"))

    distributed.initialize_global_process_group_ray = initialize
    # verl's SFT trainer.
    distributed.initialize_global_process_group = initialize_under_torchrun


def register_fsdp_engines(transformer_impl: ModuleType) -> None:
    """verl registers its FSDP engines for the devices cuda and npu; the same classes run on the CPU."""
    for model_type, engine in (
        ("language_model", transformer_impl.FSDPEngineWithLMHead),
        ("value_model", transformer_impl.FSDPEngineWithValueHead),
    ):
        register = transformer_impl.EngineRegistry.register(model_type, backend=["fsdp", "fsdp2"], device="cpu")
        register(engine)


def no_offload_to_where_it_is(transformer_impl: ModuleType) -> None:
    """verl offloads the reference to pinned CPU memory. It is in CPU memory, and pinning needs a device."""
    import torch.distributed.fsdp as fsdp

    offload, offload_policy = fsdp.CPUOffload, transformer_impl.CPUOffloadPolicy
    fsdp.CPUOffload = lambda offload_params=False: offload(offload_params=False)  # FSDP1; verl imports it when it wraps
    transformer_impl.CPUOffloadPolicy = lambda pin_memory=True: offload_policy(pin_memory=False)  # FSDP2


def sync_module_states_over_gloo(init_utils: ModuleType) -> None:
    """FSDP1 refuses to broadcast CPU parameters from rank 0 (it expects NCCL); gloo can."""
    init_utils._check_module_states_for_sync_module_states = lambda module_states: None


def value_model_without_flash_attention(model: ModuleType) -> None:
    """verl loads the critic with ``flash_attention_2`` whatever its configuration says; keep what that says."""

    def load_valuehead_model(local_path: str, torch_dtype: Any, model_config: Any, trust_remote_code: bool) -> Any:
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification.from_pretrained(
            local_path, dtype=torch_dtype, config=model_config, trust_remote_code=trust_remote_code
        )

    model.load_valuehead_model = load_valuehead_model
