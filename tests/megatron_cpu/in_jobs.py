# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's Megatron engine in a whole verl job without a GPU: ``VERL_USE_EXTERNAL_MODULES=megatron_cpu.in_jobs``.

With this checkout's ``tests`` and the directory that has megatron-core and the bridges on PYTHONPATH, and laptop mode.
verl imports this module in every process of the job, before it asks for a platform and before its plugins.
"""

import os
import threading
from typing import Any

# verl asks for an engine of the device by these; the device stays the laptop's.
os.environ |= {"VERL_ENGINE_DEVICE": "cuda", "VERL_ENGINE_VENDOR": "nvidia"}
_PLATFORM = os.environ["VERL_PLATFORM"]

from . import cuda_stand_in, transformer_engine_stand_in  # noqa: E402, F401  (the order matters)

os.environ["VERL_PLATFORM"] = _PLATFORM

# isort: split
from rejuv_plugin.integrations.verl.cpu import laptop  # noqa: E402
from rejuv_plugin.integrations.verl.import_hook import after_import  # noqa: E402

UNFUSED = {"use_cpu_initialization": True, "gradient_accumulation_fusion": False, "apply_rope_fusion": False}

_ENGINE: dict[str, Any] = {"megatron": {"override_transformer_config": {**UNFUSED, "moe_permute_fusion": False}}}

for role in ("actor", "ref"):
    del laptop.OVERRIDES["actor_rollout_ref"][role]["fsdp_config"]
    laptop.OVERRIDES["actor_rollout_ref"][role] |= _ENGINE
del laptop.OVERRIDES["critic"]["fsdp"]

_entered = threading.local()


def _stand_in_on_its_thread(transformer_impl: Any) -> None:
    """Ray runs a worker's methods on another thread than imports it, and torch's modes are a thread's own."""
    engine = transformer_impl.MegatronEngine
    original = engine.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if not getattr(_entered, "mode", None):
            _entered.mode = cuda_stand_in._CudaIsCpu()
            _entered.mode.__enter__()
        original(self, *args, **kwargs)

    engine.__init__ = __init__


after_import("verl.workers.engine.megatron.transformer_impl", _stand_in_on_its_thread)
