# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""One engine of verl's, made to load rejuvenated weights: FSDP1, FSDP2 or Megatron, any parallelism.

What an engine does with a checkpoint (shard, fuse, pad, tie, cast, offload, keep float32 copies) it does with what it
reads, and it reads what `loading` serves. So this happens before sharding, before the optimizer exists, and never to
weights that were trained: verl loads a resumed run's over them.
"""

import functools
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ....checkpoint import Plan, workers
from ....errors import InputError
from ....loading import Values, serving
from ....ops.drift import Drift
from ..job import MODEL_PATH


@dataclass
class Loaded:
    """What an engine has read."""

    drift: Mapping[str, tuple[Drift, Drift]] = field(default_factory=dict)
    """By tensor that this rank read: how far from the base the SFT checkpoint is, and what was loaded."""
    seconds: float = 0.0
    """Wall time of building the module and loading it."""


def load_rejuvenated(engine: Any, plan: Plan, rank: int) -> Loaded:
    """Let ``engine.initialize()`` load what ``plan`` describes in place of the SFT checkpoint.

    Args:
        engine: verl's, constructed and not yet initialised; its model's path is the SFT checkpoint.
        plan: of the fusion, and of the reset if there is one.
        rank: of this process, for errors.

    Returns:
        A record that is filled when the engine is initialised.
    """
    loaded = Loaded()
    build = "_build_megatron_module" if hasattr(engine, "_build_megatron_module") else "_build_module"
    original = getattr(engine, build)

    @functools.wraps(original)
    def built(*args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        if build == "_build_module" and _throws_weights_away(engine):
            module = original(*args, **kwargs)
            _check_empty(module)
        else:
            module = None
            with Values(plan, _threads()) as values, serving(values, engine.model_config.local_path) as served:
                try:
                    module = original(*args, **kwargs)
                    # transformers reads all of it. A rank of Megatron may well read no tensor that is fused: none is in
                    # its stage, or another rank sends it what it needs. `Beginning.report` sees that not all are such.
                    if build == "_build_module":
                        served.check(files=plan.sft.headers)
                except Exception as error:
                    values.failed = values.failed or error
            if values.failed:
                raise _on(rank, values.failed) from values.failed
            loaded.drift = values.drift
        loaded.seconds = time.monotonic() - began
        return module

    setattr(engine, build, built)
    return loaded


def _on(rank: int, error: Exception) -> Exception:
    """The error with the place where it was: not all ranks meet it, and the others only see that one is gone."""
    where = f"rank {rank} on {socket.gethostname()}"
    if isinstance(error, InputError):
        return InputError(error.key, error.expected, f"{error.got} ({where})", error.fix)
    return RuntimeError(f"rejuvenation: loading failed on {where}: {type(error).__name__}: {error}")


def _throws_weights_away(engine: Any) -> bool:
    """Whether this rank's module is an empty shell that the first rank of its group fills: verl's own condition
    (FSDPEngine._build_module, get_init_weight_context_manager)."""
    return not engine.model_config.hf_config.tie_word_embeddings and engine.device_mesh.get_coordinate()[-1] != 0


def _check_empty(module: Any) -> None:
    if any(parameter.device.type != "meta" for parameter in module.parameters()):
        raise InputError(
            MODEL_PATH,
            "a module without weights on this rank, as verl 0.9 builds it",
            "one with the SFT checkpoint's weights",
            "use rejuvenation.mode=disk with this version of verl",
        )


def _threads() -> int:
    """Threads for this rank: its part of the node's cores."""
    on_node = int(os.environ.get("RAY_LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_WORLD_SIZE") or 1)
    return max(1, workers() // on_node)
