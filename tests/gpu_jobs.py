# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Laptop mode's rollout beside verl's engine on a GPU, where vLLM is not: ``VERL_USE_EXTERNAL_MODULES=gpu_jobs``.

The rollout server stays on the CPU; all else of the job is as on a cluster. verl imports this module in every process.
"""

from rejuv_plugin.integrations.verl.cpu import laptop, plugin
from rejuv_plugin.integrations.verl.import_hook import after_import

laptop.OVERRIDES["trainer"]["device"] = "cuda"
for of_the_cpu in ("num_gpus", "runtime_env"):
    laptop.OVERRIDES["ray_kwargs"]["ray_init"].pop(of_the_cpu, None)

after_import("hydra.core.config_store", plugin._store_laptop_group)
after_import("verl.workers.rollout.base", plugin._register_rollout_adapter)
after_import("verl.workers.rollout.replica", plugin._register_rollout_replica)
after_import("verl.trainer.ppo.v1.replay_buffer", plugin._order_batches)
