# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A search by content: once for equal inputs and settings, however many jobs ask; one that was killed goes on."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..checkpoint import Plan
from ..checkpoint.cache import make_directory, read_inputs_once
from ..checkpoint.digest import Progress
from ..checkpoint.locks import locked
from ..config import TuningConfig
from ..neurons.reset_set import ResetSet
from .data import Data
from .run import RESULT, content_of, tune
from .trace import address

# What decides the choice, beside what decides the scores.
_SEARCH = ("alphas", "step", "resolution", "count", "best_of", "pass_score", "seed", "sampler")


def tuned_once(
    plan: Plan,
    settings: TuningConfig,
    data: Data,
    cache_dir: str | Path,
    *,
    key: str,
    cache_key: str,
    resets: Mapping[float, ResetSet] | None = None,
    rhos: tuple[float, ...] = (0.0,),
    omega: float = 1.0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What `run.tune` finds, or found earlier for the same bytes and settings.

    Args:
        plan, settings, data, key, resets, rhos, omega, progress: as of `run.tune`.
        cache_dir: directory of the cache of checkpoints; the search is in ``tuning-<16 digits>`` below it.
        cache_key: how errors name it.

    Raises:
        InputError: as `run.tune` and `checkpoint.cache.materialise`.
    """
    cache = make_directory(cache_dir, cache_key)
    inputs = read_inputs_once(plan, cache, cache_key, progress)
    content = content_of(plan, settings, data, inputs, resets or {}, omega)
    search = {name: value for name, value in asdict(settings).items() if name in _SEARCH} | {"rhos": list(rhos)}
    directory = cache / f"tuning-{address({'scores': content, 'search': search})[:16]}"
    with locked(cache / f".{directory.name}.lock", cache_key, directory):
        if (directory / RESULT).exists():
            return json.loads((directory / RESULT).read_text(encoding="utf-8"))
        directory.mkdir(exist_ok=True)
        return tune(
            plan,
            settings,
            data,
            directory,
            key=key,
            resets=resets,
            rhos=rhos,
            omega=omega,
            inputs=inputs,
            progress=progress,
        )
