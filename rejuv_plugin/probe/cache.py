# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a probe finds, by content: once for equal inputs and settings, so that a resumed job finds the very same."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..checkpoint import reset_file
from ..checkpoint.cache import check_place, make_directory, read_inputs_once
from ..checkpoint.digest import sha256_file
from ..checkpoint.layout import read_checkpoint
from ..checkpoint.locks import locked
from ..checkpoint.plan import Plan
from ..checkpoint.progress import Progress
from ..checkpoint.small_file import read_json, write_text
from ..config import ResetConfig
from ..neurons.reset_set import FORMAT, ResetSet
from .calibration import write_pairs
from .load import device_of, fitting
from .measure import check_inputs, entropy_of, input_digests, measure, selection_settings
from .prompts import Prompts, check_file
from .sample import sample_pairs

_SAMPLING_SEED = 0


@dataclass(frozen=True)
class Found:
    """A reset set, and the settings that it was found with: their ``calibration`` names a file."""

    chosen: ResetSet
    settings: ResetConfig


def found_once(
    plan: Plan,
    settings: ResetConfig,
    cache_dir: str | Path,
    prompts: Prompts | None = None,
    *,
    key: str = "rejuvenation.reset.",
    cache_key: str = "rejuvenation.cache_dir",
    progress: Progress | None = None,
) -> Found:
    """The set that `measure.measure` finds, or found earlier for the same bytes and settings.

    Args:
        plan: from `checkpoint.plan.plan_fusion`.
        settings: with ``ratio``; without ``calibration`` answers to ``prompts`` are sampled.
        cache_dir: directory of the cache of checkpoints; the set is ``reset-set-<16 digits>.json`` in it, sampled
            answers are ``calibration-<16 digits>.jsonl``.
        prompts: what to sample from.
        key: how errors name the settings before their own names.
        cache_key: how errors name ``cache_dir``.
        progress: called with ``(phase, done, in all)``; see `measure.measure`, `sample.sample_pairs`.

    Raises:
        InputError: as `measure.measure`, `sample.sample_pairs`; as `checkpoint.cache.check_place`.
    """
    check_inputs(plan, settings, key)
    check_place(plan, cache_dir, cache_key)
    cache = make_directory(cache_dir, cache_key)
    inputs = read_inputs_once(plan, cache, cache_key, progress)
    if not settings.calibration:
        assert prompts is not None, "a caller without calibration data brings prompts"
        path = _sampled_once(plan, settings, prompts, dict(inputs.sft), cache, key, cache_key, progress)
        settings = replace(settings, calibration=str(path))
    digests = input_digests(inputs, settings, key)
    path = set_path(cache, settings, digests)
    with locked(cache / f".{path.name}.lock", cache_key, path):
        if path.exists():
            return Found(reset_file.load(path, cache_key), settings)
        found = measure(plan, settings, inputs, key, progress)
        reset_file.save(found, path)
    return Found(found, settings)


def set_path(cache: Path, settings: ResetConfig, digests: Mapping[str, str]) -> Path:
    """Where a cache keeps the set of these settings and inputs.

    Args:
        cache: its directory.
        settings: of the selection.
        digests: from `measure.input_digests`.
    """
    return cache / f"reset-set-{_address(settings=selection_settings(settings), inputs=dict(digests))}.json"


def entropy_once(
    start: str | Path,
    settings: ResetConfig,
    cache_dir: str | Path,
    *,
    key: str,
    cache_key: str,
    progress: Progress | None = None,
) -> float:
    """Mean entropy in nats of a checkpoint before the response tokens of the calibration data, or its earlier value.

    Args:
        start: the rejuvenated checkpoint: immutable, in the cache, named by its content.
        settings: with ``calibration``.
        cache_dir: where the value is kept, beside ``start``.
        key: how errors name the settings before their own names.
        cache_key: how errors name ``start`` and ``cache_dir``.
        progress: as `measure.entropy_of`.
    """
    checkpoint = read_checkpoint(str(start), cache_key)
    calibration = check_file(str(settings.calibration), f"{key}calibration")
    address = _address(max_tokens=settings.max_tokens, calibration=sha256_file(calibration))
    path = Path(cache_dir) / f"entropy-{checkpoint.root.name}-{address}.json"
    with locked(path.with_name(f".{path.name}.lock"), cache_key, path):
        if not path.exists():
            mean = entropy_of(start, settings, key=key, start_key=cache_key, progress=progress)
            write_text(path, json.dumps({"mean": mean}) + "\n")
        return float(read_json(path)["mean"])


def _sampled_once(
    plan: Plan,
    settings: ResetConfig,
    prompts: Prompts,
    sft: dict[str, str],
    cache: Path,
    key: str,
    cache_key: str,
    progress: Progress | None,
) -> Path:
    prompts.check()
    # What is longer would be cut again.
    prompts = replace(prompts, max_response=min(prompts.max_response, settings.max_tokens))
    files = [Path(file).expanduser() for file in prompts.files]
    address = _address(
        sft=sft,
        prompts=[sha256_file(file) for file in files],
        sampling=[*asdict(replace(prompts, files=(), key="")).values(), settings.examples],
    )
    path = cache / f"calibration-{address}.jsonl"
    with locked(cache / f".{path.name}.lock", cache_key, path):
        if not path.exists():
            device = device_of(settings.device, f"{key}device")
            with fitting(device, f"{key}device"):
                # A seed of its own: with another random control the data stays the same.
                pairs = sample_pairs(plan.sft, prompts, settings.examples, _SAMPLING_SEED, device, progress)
            write_pairs(pairs, path)
    return path


def _address(**content: Any) -> str:
    text = json.dumps({"format": FORMAT, **content}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
