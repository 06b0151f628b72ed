# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's Megatron engine in a whole verl job without a GPU: ``VERL_USE_EXTERNAL_MODULES=megatron_cpu.in_jobs``.

For laptop mode, with this checkout's ``tests`` and the directory that holds megatron-core and the bridges on
PYTHONPATH. verl imports this module in every process of the job, before it asks for its platform and its plugins.
"""

import os
import threading
from types import ModuleType
from typing import Any

# verl's name of the engine; the device stays the laptop's.
os.environ |= {"VERL_ENGINE_DEVICE": "cuda", "VERL_ENGINE_VENDOR": "nvidia"}
_PLATFORM = os.environ["VERL_PLATFORM"]

from . import cuda_stand_in, transformer_engine_stand_in  # noqa: E402, F401  (the order matters)

os.environ["VERL_PLATFORM"] = _PLATFORM

# isort: split
from rejuv_plugin.integrations.verl.cpu.laptop import OVERRIDES  # noqa: E402
from rejuv_plugin.integrations.verl.import_hook import after_import  # noqa: E402

_this_thread = threading.local()


def _settings_of_megatron() -> None:
    """In laptop mode's group: an engine's settings are Megatron's, not FSDP's."""
    for role in ("actor", "ref"):
        settings = OVERRIDES["actor_rollout_ref"][role]
        del settings["fsdp_config"]
        settings["megatron"] = {"override_transformer_config": cuda_stand_in.UNFUSED}
    del OVERRIDES["critic"]["fsdp"]


def _stand_in_where_it_runs(transformer_impl: ModuleType) -> None:
    """Ray calls a worker's methods on another thread than the one that imported this."""
    engine = transformer_impl.MegatronEngine
    original = engine.__init__

    def __init__(self: Any, model_config: Any, engine_config: Any, *args: Any, **kwargs: Any) -> None:
        if not hasattr(_this_thread, "mode"):
            _this_thread.mode = cuda_stand_in.CudaIsCpu().__enter__()
        # As laptop mode's other engine and its rollouts; verl's settings would refuse it.
        object.__setattr__(engine_config, "dtype", "float32")
        original(self, model_config, engine_config, *args, **kwargs)

    engine.__init__ = __init__


_settings_of_megatron()
after_import("verl.workers.engine.megatron.transformer_impl", _stand_in_where_it_runs)
