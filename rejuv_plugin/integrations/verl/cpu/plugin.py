# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Entry point ``rejuvenation_cpu`` of the group ``verl.plugins``: verl's pipeline on a machine without a GPU.

Independent of Rejuvenation (``VERL_USE_EXTERNAL_PLUGINS=rejuvenation_cpu`` loads it alone), and inert unless the
environment says ``VERL_PLATFORM=cpu``.
"""

import os
from types import ModuleType

from ..import_hook import after_import
from ..loud import failures_are_printed


def _store_laptop_group(config_store: ModuleType) -> None:
    from .laptop import OVERRIDES

    # Package _global_: `+laptop=default` overrides verl's own keys; the user's later overrides win over it.
    config_store.ConfigStore.instance().store(group="laptop", name="default", node=OVERRIDES, package="_global_")


def _fix_process_group(distributed: ModuleType) -> None:
    from .verl_fixes import process_group_without_duplicate_backend

    process_group_without_duplicate_backend(distributed)


def _prepare_engines(transformer_impl: ModuleType) -> None:
    from .verl_fixes import no_offload_to_where_it_is, register_fsdp_engines

    register_fsdp_engines(transformer_impl)
    no_offload_to_where_it_is(transformer_impl)


def _load_critic(model: ModuleType) -> None:
    from .verl_fixes import value_model_without_flash_attention

    value_model_without_flash_attention(model)


def _let_fsdp1_broadcast(init_utils: ModuleType) -> None:
    from .verl_fixes import sync_module_states_over_gloo

    sync_module_states_over_gloo(init_utils)


def _order_batches(replay_buffer: ModuleType) -> None:
    from .replay_buffer import order_by_content

    order_by_content(replay_buffer)


def _register_rollout_adapter(base: ModuleType) -> None:
    from .rollout import register_adapter

    register_adapter(base)


def _register_rollout_replica(replica: ModuleType) -> None:
    from .rollout import register_replica

    register_replica(replica)


with failures_are_printed("rejuvenation_cpu"):
    if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
        from . import platform  # noqa: F401  (registers itself; must be there before verl first asks for a platform)
        from .vllm_fixes import answer_for_vllm_cpu

        answer_for_vllm_cpu()

        after_import("hydra.core.config_store", _store_laptop_group)
        after_import("verl.utils.distributed", _fix_process_group)
        after_import("verl.workers.engine.fsdp.transformer_impl", _prepare_engines)
        after_import("verl.utils.model", _load_critic)
        after_import("torch.distributed.fsdp._init_utils", _let_fsdp1_broadcast)
        after_import("verl.trainer.ppo.v1.replay_buffer", _order_batches)
        after_import("verl.workers.rollout.base", _register_rollout_adapter)
        after_import("verl.workers.rollout.replica", _register_rollout_replica)
