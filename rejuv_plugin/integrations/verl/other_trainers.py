# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's commands beside ``main_ppo``: nobody extends their trainers, which would train plain SFT and say nothing.

They are made of the legacy ``RayPPOTrainer``, some with constructors that do not call its own. So they are refused
where verl's all come by, in ``run_ppo``, before Ray starts; others, as of recipes with a ``run_ppo`` of their own, by
its constructor.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

from ...errors import InputError
from .driver_check import check, exits

_MAIN = "verl.trainer.main_ppo"


def checked_run(run_ppo: Callable[..., None]) -> Callable[..., None]:
    """Wrap verl's ``run_ppo``, which commands beside ``main_ppo`` call in the driver without ``validate_config``."""

    @functools.wraps(run_ppo)
    def run(config: Any, task_runner_class: Any, *args: Any, **kwargs: Any) -> None:
        if config.get("rejuvenation") is not None:
            with exits():
                if _module_of(task_runner_class).startswith("verl.") and _module_of(task_runner_class) != _MAIN:
                    raise _refused(task_runner_class)
                # A user's own may well run the trainers that are extended; if not, it trips.
                check(config)
        run_ppo(config, task_runner_class, *args, **kwargs)

    return run


def checked_trainer(init: Callable[..., None]) -> Callable[..., None]:
    """Wrap the constructor of verl's ``RayPPOTrainer``.

    Raises:
        InputError: by the constructor, if the configuration asks for Rejuvenation.
    """

    @functools.wraps(init)
    def checked(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        if config.get("rejuvenation") is not None:
            raise _refused(type(self))
        init(self, config, *args, **kwargs)

    return checked


def _refused(cls: Any) -> InputError:
    return InputError(
        "rejuvenation",
        f"{_MAIN}, whose trainers apply it",
        getattr(cls, "__ray_actor_class__", cls).__name__,
        f"run python -m {_MAIN}, trainer.v1.trainer_mode=separate_async for asynchronous training; or make the "
        "checkpoint with rejuv apply, and train from it without +rejuvenation=default",
    )


def _module_of(runner: Any) -> str:
    """Where a task runner, a Ray actor class or plain, is defined; of a command its own name, not ``__main__``."""
    name = getattr(runner, "__ray_actor_class__", runner).__module__
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec.name if spec else name
