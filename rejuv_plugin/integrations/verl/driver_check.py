# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Bad input ends the command before Ray starts, with one line and exit code 2."""

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ...errors import InputError
from . import tripwire
from .job import BASE_PATH, MODEL_PATH, job_of


def checked(validate_config: Callable[..., None]) -> Callable[..., None]:
    """Wrap verl's ``validate_config``, which ``main_ppo`` calls in the driver before ``ray.init``."""

    @functools.wraps(validate_config)
    def validate(config: Any, *args: Any, **kwargs: Any) -> None:
        with exits():
            check(config)
        validate_config(config, *args, **kwargs)

    return validate


@contextmanager
def exits() -> Iterator[None]:
    """Bad input within the block ends the process: one line on stderr, exit code 2."""
    try:
        yield
    except InputError as error:
        print(f"rejuvenation: {error}", file=sys.stderr)
        sys.exit(2)


def check(config: Any) -> None:
    """Check all that can be known of a job here, and arm the tripwire; nothing without the group ``rejuvenation``.

    Raises:
        InputError: bad input.
    """
    job = job_of(config)
    if job is None:
        return
    from ...checkpoint import check_cache, is_hub_name, read_checkpoint
    from ...checkpoint.adapter import is_adapter
    from ...checkpoint.cache import check_place
    from ...checkpoint.source import locate
    from .monitors.probe_set import probe_set_of
    from .planning import CACHE_KEY, plan_of

    # A hub name is looked up, and downloaded if need be, by the trainer: it may run on another node than this command.
    sides = {MODEL_PATH: job.sft_path, BASE_PATH: str(job.settings.base_path)}
    here = {key: name for key, name in sides.items() if not is_hub_name(name)}
    elsewhere = _trains_elsewhere(config)
    if elsewhere:
        here = {key: name for key, name in here.items() if Path(name).expanduser().exists()}
    if here == sides:
        plan = plan_of(job)
        if job.settings.mode == "worker":
            check_place(plan, job.cache_dir, CACHE_KEY)
        elif not elsewhere:
            check_cache(plan, job.cache_dir, CACHE_KEY)
        probe_set_of(job)
    else:
        for key, name in here.items():
            if not (key == MODEL_PATH and is_adapter(locate(name, key))):
                read_checkpoint(name, key)
    tripwire.arm(config)


def _trains_elsewhere(config: Any) -> bool:
    """Whether this may be a machine that does not see the trainer's disks, as those that jobs are submitted from. The
    trainer checks all once more."""
    address = OmegaConf.select(config, "ray_kwargs.ray_init.address") or os.environ.get("RAY_ADDRESS")
    return address != "local" if address else _joins_a_cluster()


def _joins_a_cluster() -> bool:
    """Whether `ray start` left an address here: `ray.init` without one joins that cluster, whatever its other nodes."""
    root = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    return (Path(root) / "ray" / "ray_current_cluster").is_file()
