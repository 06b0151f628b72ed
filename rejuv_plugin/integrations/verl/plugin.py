# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Entry point ``rejuvenation`` of the group ``verl.plugins``: arms the hooks, imports nothing heavy.

verl imports this module in every process of a job, Ray workers included. With no ``rejuvenation`` group in the
configuration, everything armed here leaves verl as it is.
"""

import sys
from types import ModuleType

from packaging.version import parse  # verl has imported it

from .import_hook import after_import
from .loud import failures_are_printed


def _store_config_group(config_store: ModuleType) -> None:
    from ...config import defaults

    # `+rejuvenation=default` on the user's command selects this node; Hydra's search path stays as it was.
    config_store.ConfigStore.instance().store(group="rejuvenation", name="default", node=defaults())


def _extend_trainers(v1: ModuleType) -> None:
    from .trainer import extend_registered_trainers

    extend_registered_trainers(v1.trainer_base.TRAINER_REGISTRY)


def _check_before_ray(verl_config: ModuleType) -> None:
    from .driver_check import checked

    verl_config.validate_config = checked(verl_config.validate_config)


def _check_other_commands(main_ppo: ModuleType) -> None:
    from .other_trainers import checked_run

    main_ppo.run_ppo = checked_run(main_ppo.run_ppo)


def _refuse_legacy_trainers(ray_trainer: ModuleType) -> None:
    from .other_trainers import checked_trainer

    ray_trainer.RayPPOTrainer.__init__ = checked_trainer(ray_trainer.RayPPOTrainer.__init__)


def _refuse_old_verl() -> None:
    # Before 0.9 verl loads no entry points: VERL_USE_EXTERNAL_MODULES may still name us, and then `import verl` fails.
    version = getattr(sys.modules.get("verl"), "__version__", None)
    if version and parse(version).release < (0, 9):
        raise ImportError(
            f"verl: expected 0.9 or newer, got {version}, whose trainers cannot be extended. "
            "Fix: unset VERL_USE_EXTERNAL_MODULES, run `rejuv apply`, and train from its output"
        )


with failures_are_printed("rejuvenation"):
    _refuse_old_verl()
    after_import("hydra.core.config_store", _store_config_group)
    after_import("verl.trainer.ppo.v1", _extend_trainers)
    after_import("verl.utils.config", _check_before_ray)
    after_import("verl.trainer.main_ppo", _check_other_commands)
    after_import("verl.trainer.ppo.ray_trainer", _refuse_legacy_trainers)
