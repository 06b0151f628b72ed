# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""One engine of verl's, made to load rejuvenated weights: FSDP1, FSDP2 or Megatron, any parallelism.

What an engine does with a checkpoint (shard, fuse, pad, tie, cast, offload, keep float32 copies) it does with what it
reads, and it reads what `loading` serves. So this happens before sharding, before the optimizer exists, and never to
weights that were trained: verl loads a resumed run's over them.
"""

import functools
import inspect
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ....checkpoint import Plan, cores
from ....errors import InputError
from ....loading import Values, serving
from ....ops.drift import Drift
from ..engine import is_megatron
from ..job import MODEL_PATH


@dataclass
class Loaded:
    """What an engine has read."""

    drift: Mapping[str, tuple[Drift, Drift]] = field(default_factory=dict)
    """By what this rank read, see `Values.drift`: how far from the base the SFT checkpoint is, and what was loaded."""
    apart: bool = False
    """Whether stacks of experts were read by expert."""
    tied: bool = False
    """Whether the unembedding is the embedding, as the engine has it."""
    seconds: float = 0.0
    """Wall time of building the module and loading it."""


def load_rejuvenated(engine: Any, plan: Plan, where: str) -> Loaded:
    """Let ``engine.initialize()`` load what ``plan`` describes in place of the SFT checkpoint.

    Args:
        engine: verl's, constructed and not yet initialised; its model's path is the SFT checkpoint.
        plan: of the fusion, and of the reset if there is one.
        where: this process, for errors; see `probe.ranks.place`.

    Returns:
        A record that is filled when the engine is initialised.
    """
    # FSDP's loader wants stacks whole.
    loaded = Loaded(apart=is_megatron(engine))
    build = "_build_megatron_module" if is_megatron(engine) else "_build_module"
    original = getattr(engine, build)

    @functools.wraps(original)
    def built(*args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        loaded.tied = _is_tied(engine)
        if build == "_build_module" and _throws_weights_away(engine):
            module = original(*args, **kwargs)
            _check_empty(module)
        else:
            module = None
            alone = build == "_build_module" and not _is_tied(engine)
            with (
                Values(plan, _threads(alone), apart=loaded.apart) as values,
                serving(values, engine.model_config.local_path),
                _one_parameter_at_a_time(engine),
            ):
                try:
                    module = original(*args, **kwargs)
                except Exception as error:
                    values.failed = values.failed or error
            if values.failed:
                raise _placed(values.failed, where) from values.failed
            loaded.drift = values.drift
        loaded.seconds = time.monotonic() - began
        return module

    setattr(engine, build, built)
    return loaded


@contextmanager
def _one_parameter_at_a_time(engine: Any) -> Iterator[None]:
    """Let mbridge read what a parameter is made of when it comes to it: by itself it reads all of a pipeline stage
    first, which is cheap with views of mapped files alone. What it makes of them is the same."""
    bridge = getattr(engine, "bridge", None)
    load = getattr(bridge, "load_weights", None)
    # megatron-bridge has no such setting, and reads so anyway.
    if load is None or "memory_efficient" not in inspect.signature(load).parameters:
        yield
        return
    # An attribute of the instance, found before the method of its class.
    bridge.load_weights = functools.partial(load, memory_efficient=True)
    try:
        yield
    finally:
        del bridge.load_weights


def _placed(error: Exception, where: str) -> Exception:
    """The error with the place where it was: not all ranks meet it, and the others only see that one is gone."""
    if isinstance(error, InputError):
        return InputError(error.key, error.expected, f"{error.got} ({where})", error.fix)
    return RuntimeError(f"rejuvenation: loading failed {where}: {type(error).__name__}: {error}")


def _throws_weights_away(engine: Any) -> bool:
    """Whether this rank's module is an empty shell that the first rank of its group fills: verl's own condition
    (FSDPEngine._build_module, get_init_weight_context_manager)."""
    return not _is_tied(engine) and engine.device_mesh.get_coordinate()[-1] != 0


def _is_tied(engine: Any) -> bool:
    return bool(getattr(engine.model_config.hf_config, "tie_word_embeddings", False))


def _check_empty(module: Any) -> None:
    if any(parameter.device.type != "meta" for parameter in module.parameters()):
        raise InputError(
            MODEL_PATH,
            "a module without weights on this rank, as verl 0.9 builds it",
            "one with the SFT checkpoint's weights",
            "use rejuvenation.mode=disk with this version of verl",
        )


def _threads(alone: bool) -> int:
    """Threads for this rank: its part of the node's cores, or all of them if the node's other ranks have nothing to do
    meanwhile; at most 8, where reading is the limit."""
    on_node = 1 if alone else int(os.environ.get("RAY_LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_WORLD_SIZE") or 1)
    return max(1, min(8, cores() // on_node))
