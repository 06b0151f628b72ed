# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's Megatron engine of a topology, on this rank; to be built on a rank of a `rank_server`."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from . import cuda_stand_in, transformer_engine_stand_in  # noqa: F401  (the order matters: before verl)
from .topology import Topology

# isort: split
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils
from verl.workers.config import HFModelConfig, McoreEngineConfig, McoreOptimizerConfig
from verl.workers.engine import EngineRegistry
from verl.workers.engine.megatron.transformer_impl import MegatronEngine
from verl.workers.utils.losses import sft_loss

LOSS = partial(sft_loss, None)


def build(
    path: Path,
    topology: Topology,
    *,
    model_type: str = "language_model",
    forward_only: bool = False,
    offload: bool = False,
    lr: float = 1e-2,
    weight_decay: float = 0.01,
    dtype: str = "bfloat16",
    transformer: dict[str, Any] | None = None,
) -> MegatronEngine:
    """A new engine, not initialised, as verl's worker makes it from its configuration.

    Args:
        path: HF checkpoint.
        topology: how its model is cut up.
        model_type: or ``value_model``.
        forward_only: as the KL reference is; no optimizer.
        offload: parameters and optimizer state are on the "host" between uses.
        lr, weight_decay: of the optimizer.
        dtype: of parameters and activations.
        transformer: more of megatron-core's ``TransformerConfig``.
    """
    model = HFModelConfig(path=str(path))
    model.model_type = model_type
    engine = McoreEngineConfig(
        tensor_model_parallel_size=topology.tp,
        pipeline_model_parallel_size=topology.pp,
        virtual_pipeline_model_parallel_size=topology.vpp,
        expert_model_parallel_size=topology.ep,
        expert_tensor_parallel_size=topology.etp,
        vanilla_mbridge=topology.vanilla,
        use_remove_padding=topology.packed,
        override_transformer_config=cuda_stand_in.UNFUSED | (transformer or {}),
        forward_only=forward_only,
        param_offload=offload,
        optimizer_offload=offload,
        use_dynamic_bsz=False,
        micro_batch_size_per_gpu=2,
        infer_micro_batch_size_per_gpu=2,
    )
    # verl's configuration admits 16 bits only, its engine others too.
    object.__setattr__(engine, "dtype", dtype)
    return EngineRegistry.new(
        model_type,
        "megatron",
        model_config=model,
        engine_config=engine,
        optimizer_config=McoreOptimizerConfig(
            lr=lr, weight_decay=weight_decay, lr_warmup_steps=0, total_training_steps=10
        ),
        checkpoint_config=CheckpointConfig(),
    )


def batch(vocabulary: int, lengths: tuple[int, ...] = (9, 12, 7, 10)) -> Any:
    """Random sequences of a few lengths; the loss is on all but the first three tokens of each."""
    generator = torch.Generator().manual_seed(0)

    def ragged(tensors: list[torch.Tensor]) -> torch.Tensor:
        return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)

    return tensordict_utils.get_tensordict(
        {
            "input_ids": ragged([torch.randint(2, vocabulary, (n,), generator=generator) for n in lengths]),
            "loss_mask": ragged([(torch.arange(n) >= 3).long() for n in lengths]),
            "position_ids": ragged([torch.arange(n) for n in lengths]),
            "temperature": torch.ones(len(lengths)),
        },
        non_tensor_dict={
            "use_dynamic_bsz": False,
            "micro_batch_size_per_gpu": 2,
            "use_fused_kernels": False,
            "calculate_entropy": True,
        },
    )


def exported(engine: MegatronEngine) -> dict[str, torch.Tensor]:
    """Copies of all weights by HF name, as the rollout gets them. A collective: every rank gets all of them."""
    weights, _ = engine.get_per_tensor_param()
    return {name: tensor.clone() for name, tensor in weights}
