# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Reset sets by content: measured once for equal inputs and settings, so that a resumed job finds the very same set."""

import hashlib
import json
from pathlib import Path

from ..checkpoint import reset_file
from ..checkpoint.cache import check_cache, make_directory, read_inputs_once
from ..checkpoint.digest import Progress
from ..checkpoint.locks import locked
from ..checkpoint.plan import Plan
from ..config import ResetConfig
from ..neurons.reset_set import FORMAT, ResetSet
from .measure import check_inputs, input_digests, measure, selection_settings


def measured_once(
    plan: Plan,
    settings: ResetConfig,
    cache_dir: str | Path,
    *,
    key: str = "rejuvenation.reset.",
    cache_key: str = "rejuvenation.cache_dir",
    progress: Progress | None = None,
) -> ResetSet:
    """The set that `measure.measure` finds, or found earlier for the same bytes and settings.

    Args:
        plan: from `checkpoint.plan.plan_fusion`.
        settings: with ``ratio`` and ``calibration``.
        cache_dir: directory of the cache of checkpoints; the set is ``reset-set-<16 digits>.json`` in it.
        key: how errors name the settings before their own names.
        cache_key: how errors name ``cache_dir``.
        progress: called with ``("hash", bytes done, bytes in all)``.

    Raises:
        InputError: as `measure.measure` and `checkpoint.cache.materialise`.
    """
    check_inputs(plan, settings, key)
    check_cache(plan, cache_dir, cache_key)
    cache = make_directory(cache_dir, cache_key)
    inputs = read_inputs_once(plan, cache, cache_key, progress)
    digests = input_digests(inputs, settings, key)
    content = {"format": FORMAT, "settings": selection_settings(settings), "inputs": digests}
    address = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path = cache / f"reset-set-{address[:16]}.json"
    with locked(cache / f".{path.name}.lock", cache_key, path):
        if path.exists():
            return reset_file.load(path, cache_key)
        found = measure(plan, settings, inputs, key)
        reset_file.save(found, path)
    return found
