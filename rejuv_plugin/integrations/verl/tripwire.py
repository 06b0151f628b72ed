# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""No job that asks for Rejuvenation may run without it.

When the plugin is installed where the command runs but not where the trainer runs (another node or image, or
``VERL_USE_EXTERNAL_PLUGINS`` differs there), verl would train the plain SFT checkpoint and say nothing. So the driver
names `tripped` as the model's ``external_lib``, which verl imports before it reads a model; our trainer takes the name
out again. A trainer without the plugin fails at once: on the missing package, or on the error in `tripped`.
"""

from typing import Any

from omegaconf import ListConfig, OmegaConf, open_dict

_TRIPPED = f"{__package__}.tripped"


def arm(config: Any) -> None:
    """Put the tripwire before the user's own ``actor_rollout_ref.model.external_lib``; changes ``config``."""
    _set(config, [_TRIPPED, *(lib for lib in _libs(config) if lib != _TRIPPED)])


def disarm(config: Any) -> None:
    """Restore the user's own ``external_lib``; changes ``config``. Does nothing where `arm` was not called."""
    if _TRIPPED in _libs(config):
        libs = [lib for lib in _libs(config) if lib != _TRIPPED]
        _set(config, libs[0] if len(libs) == 1 else libs or None)


def _libs(config: Any) -> list[str]:
    value = OmegaConf.select(config, "actor_rollout_ref.model.external_lib")
    return list(value) if isinstance(value, (list, ListConfig)) else [value] if value else []


def _set(config: Any, value: Any) -> None:
    with open_dict(config):
        config.actor_rollout_ref.model.external_lib = value
