# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What ``rejuv status`` prints: asks verl itself, in a process as its workers are."""

import importlib.metadata
import os
from importlib.util import find_spec


def report() -> tuple[list[str], bool]:
    """Import verl and look whether our mixin is in its three trainers. Takes as long as a worker's start, ~10 s.

    Returns:
        Lines to print, and whether a job that asks for Rejuvenation would get it.
    """
    try:
        version = importlib.metadata.version("verl")
    except importlib.metadata.PackageNotFoundError:
        return ["verl: not installed. Fix: install this package with its extra [verl]"], False
    if find_spec("verl.trainer.ppo.v1") is None:
        return [f"verl {version}: its trainers cannot be extended. Fix: verl 0.9, or `rejuv apply`"], False
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto")

    from verl.trainer.ppo.v1 import trainer_base
    from verl.utils.device import get_device_name

    from .trainer import RejuvenationMixin

    modes = {mode: issubclass(cls, RejuvenationMixin) for mode, cls in trainer_base.TRAINER_REGISTRY.items()}
    loaded = all(modes.values())
    lines = [
        f"verl {version}, device {get_device_name()}, VERL_USE_EXTERNAL_PLUGINS={policy}",
        *(f"trainer {mode}: {'with rejuvenation' if ours else 'plain'}" for mode, ours in modes.items()),
    ]
    if not loaded:
        lines.append("Fix: unset VERL_USE_EXTERNAL_PLUGINS, or add rejuvenation to it.")
    return lines, loaded
