# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The three places where verl 0.9 and torch 2.13 take for granted that the device is not the CPU."""

import functools
from types import ModuleType
from typing import Any


def process_group_without_duplicate_backend(distributed: ModuleType) -> None:
    """verl asks for the backend ``cpu:gloo,<device>:<backend>``; torch rejects ``cpu`` named twice."""
    original = distributed.initialize_global_process_group_ray

    @functools.wraps(original)
    def initialize(timeout_second: float | None = None, backend: str | None = None) -> Any:
        return original(timeout_second=timeout_second, backend=backend or "cpu:gloo")

    distributed.initialize_global_process_group_ray = initialize


def register_fsdp_engines(transformer_impl: ModuleType) -> None:
    """verl registers its FSDP engines for the devices cuda and npu; the same classes run on the CPU."""
    for model_type, engine in (
        ("language_model", transformer_impl.FSDPEngineWithLMHead),
        ("value_model", transformer_impl.FSDPEngineWithValueHead),
    ):
        register = transformer_impl.EngineRegistry.register(model_type, backend=["fsdp", "fsdp2"], device="cpu")
        register(engine)


def sync_module_states_over_gloo(init_utils: ModuleType) -> None:
    """FSDP1 refuses to broadcast CPU parameters from rank 0 (it expects NCCL); gloo can."""
    init_utils._check_module_states_for_sync_module_states = lambda module_states: None
