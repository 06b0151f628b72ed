# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A search by content: once for equal inputs and settings, however many jobs ask; one that was killed goes on."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..checkpoint.cache import make_directory, read_inputs_once
from ..checkpoint.locks import locked
from ..checkpoint.progress import Progress
from ..config import TuningConfig
from .earlier import RESULT
from .question import Question
from .run import tune
from .trace import address

# What decides the choice, beside what decides the scores.
_SEARCH = ("alphas", "step", "resolution", "count", "best_of", "pass_score")


def tuned_once(
    question: Question,
    settings: TuningConfig,
    cache_dir: str | Path,
    *,
    cache_key: str,
    fusion_alone: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What `run.tune` finds, or found earlier for the same bytes and settings.

    Args:
        question, settings, fusion_alone, progress: as of `run.tune`.
        cache_dir: directory of the cache of checkpoints; the search is in ``tuning-<16 digits>`` below it.
        cache_key: how errors name it.

    Raises:
        InputError: as `run.tune` and `checkpoint.cache.materialise`.
    """
    cache = make_directory(cache_dir, cache_key)
    inputs = read_inputs_once(question.plan, cache, cache_key, progress)
    search = {name: value for name, value in asdict(settings).items() if name in _SEARCH}
    content = {"scores": question.content(inputs), "search": search, "fusion_alone": fusion_alone}
    directory = cache / f"tuning-{address(content)[:16]}"
    with locked(cache / f".{directory.name}.lock", cache_key, directory):
        if (directory / RESULT).exists():
            return json.loads((directory / RESULT).read_text(encoding="utf-8"))
        directory.mkdir(exist_ok=True)
        return tune(question, settings, directory, inputs=inputs, fusion_alone=fusion_alone, progress=progress)
