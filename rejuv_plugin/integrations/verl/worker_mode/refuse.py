# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What worker mode cannot do, told by name before anything starts."""

from typing import Any

from omegaconf import OmegaConf

from ....config import RejuvenationConfig
from ....errors import InputError

STRATEGIES = ("fsdp", "fsdp2", "megatron")
_DISK = "set rejuvenation.mode=disk"


def refuse(config: Any, settings: RejuvenationConfig, engines: list[str], uses_lora: bool) -> None:
    """Refuse what would be wrong, or is not known to be right, with ``rejuvenation.mode=worker``.

    Args:
        config: verl's configuration.
        settings: its group ``rejuvenation``.
        engines: the keys of those that may start rejuvenated.
        uses_lora: whether the actor has a LoRA adapter.

    Raises:
        InputError: by the key of the setting that does not go with worker mode.
    """
    for engine in engines:
        strategy = OmegaConf.select(config, f"{engine}.strategy")
        if strategy is not None and strategy not in STRATEGIES:
            raise InputError(f"{engine}.strategy", f"one of {', '.join(STRATEGIES)}", repr(strategy), _DISK)
    if uses_lora:
        # With load_format=safetensors only the adapter is ever sent to the rollout: it would keep the SFT base.
        raise InputError(
            "rejuvenation.mode",
            "disk, as the actor has a LoRA adapter, and rollouts read its base from the disk",
            "'worker'",
            f"{_DISK} or train without LoRA",
        )
    if settings.fusion.method != "linear":
        # Which of equal changes a library keeps may differ between processors, and so between copies of a shard.
        raise InputError("rejuvenation.fusion.method", "linear in worker mode", repr(settings.fusion.method), _DISK)
    reset = settings.reset
    if reset.ratio and not reset.calibration:
        raise InputError(
            "rejuvenation.reset.calibration",
            "a file of prompts and responses: in worker mode no model is whole that could answer",
            "null",
            "make one with rejuv calibrate, or give rejuvenation.reset.set_path",
        )
    if reset.ratio and reset.device != "auto":
        raise InputError(
            "rejuvenation.reset.device",
            "auto: in worker mode the neurons are found on the devices that train",
            repr(reset.device),
            "remove the setting",
        )
