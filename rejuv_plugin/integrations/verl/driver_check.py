# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Bad input ends the command before Ray starts, with one line and exit code 2."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from ...errors import InputError
from . import tripwire
from .job import job_of


def checked(validate_config: Callable[..., None]) -> Callable[..., None]:
    """Wrap verl's ``validate_config``, which ``main_ppo`` calls in the driver before ``ray.init``."""

    @functools.wraps(validate_config)
    def validate(config: Any, *args: Any, **kwargs: Any) -> None:
        try:
            _check(config)
        except InputError as error:
            print(f"rejuvenation: {error}", file=sys.stderr)
            sys.exit(2)
        validate_config(config, *args, **kwargs)

    return validate


def _check(config: Any) -> None:
    job = job_of(config)
    if job is None:
        return
    # A hub name is looked up, and downloaded if need be, by the trainer: it may run on another node than this command.
    if all(_is_path(str(name)) for name in (job.sft_path, job.settings.base_path)):
        from .disk_mode import plan_of

        plan_of(job)
    tripwire.arm(config)


def _is_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or os.path.isdir(name)
