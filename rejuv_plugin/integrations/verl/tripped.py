# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Imported only when a trainer without our mixin is about to read the model: see `tripwire`."""

raise ImportError(
    "rejuvenation: expected the plugin to be loaded in the process that runs the trainer, got verl's plain trainer. "
    "Fix: run verl.trainer.main_ppo, install rejuv-plugin on every node, do not exclude it in "
    "VERL_USE_EXTERNAL_PLUGINS, and use a trainer.v1.trainer_mode of verl's own: sync, colocate_async or "
    "separate_async."
)
