# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's FSDP engines, to be built on a rank of a `rank_server`."""

from pathlib import Path
from typing import Any

import torch
from verl.trainer.config import CheckpointConfig
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
from verl.workers.engine import EngineRegistry


def build(
    path: Path,
    strategy: str,
    *,
    model_type: str = "language_model",
    lr: float = 0.0,
    model: dict[str, Any] | None = None,
    dtype: str = "fp32",
    **config: Any,
) -> Any:
    """A new engine, not initialised, as verl's worker makes it from its configuration.

    Args:
        path: HF checkpoint.
        strategy: ``fsdp`` or ``fsdp2``.
        model_type: or ``value_model``.
        lr: of the optimizer.
        model: more of `HFModelConfig`.
        dtype: of parameters in the forward.
        config: more of `FSDPEngineConfig`.
    """
    options = {"load_tokenizer": False, "use_remove_padding": False, "override_config": _EAGER} | (model or {})
    model_config = HFModelConfig(path=str(path), **options)
    model_config.model_type = model_type
    precision = {"param_dtype": dtype, "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    return EngineRegistry.new(
        model_type,
        strategy,
        model_config=model_config,
        engine_config=FSDPEngineConfig(strategy=strategy, use_torch_compile=False, mixed_precision=precision, **config),
        optimizer_config=FSDPOptimizerConfig(lr=lr, weight_decay=0.0, lr_warmup_steps=0, total_training_steps=10),
        checkpoint_config=CheckpointConfig(),
    )


_EAGER = {"attn_implementation": "eager"}


def exported(engine: Any) -> dict[str, torch.Tensor]:
    """Copies of all weights by HF name, as the rollout gets them. A collective: every rank gets all of them."""
    weights, _ = engine.get_per_tensor_param()
    return {name: tensor.clone() for name, tensor in weights}
