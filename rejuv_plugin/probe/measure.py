# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""From two checkpoints and calibration data to the reset set: two passes (arXiv 2606.09932 v1, Eq. 2 to 4)."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint.digest import sha256_file
from ..checkpoint.layout import Checkpoint, read_checkpoint
from ..checkpoint.plan import Plan
from ..checkpoint.progress import Progress
from ..checkpoint.provenance import Inputs
from ..checkpoint.provenance import input_digests as digests_of
from ..config import ResetConfig
from ..errors import InputError
from ..neurons.architectures import architecture_of
from ..neurons.modules import chosen, modules_of
from ..neurons.reset_set import Chosen, ResetSet
from .dialogue import Example, examples_of, needs_template
from .load import device_of, fitting, load_model, load_tokenizer
from .passes import Error, scan, score
from .prompts import check_file
from .ranks import ALONE, Ranks, World
from .usage import free, peak_memory, reset_peak_memory

# Beyond this, relative to the logits, the residual stream is not what the architecture's constants say.
_MAX_RECONSTRUCTION_ERROR = 0.01
# What decides which neurons are found; omega only decides what is done to them.
_SELECTION = (
    *("ratio", "max_tokens", "positions", "gradient", "rule", "cap", "select", "ranking"),
    *("include", "exclude", "seed"),
)


def selection_settings(settings: ResetConfig) -> dict[str, Any]:
    """The settings that decide the set."""
    return {name: value for name, value in asdict(settings).items() if name in _SELECTION}


def input_digests(inputs: Inputs, settings: ResetConfig, key: str) -> dict[str, str]:
    """SHA-256 of what a set is made from: ``base``, ``sft`` (each over its files' digests; of the SFT checkpoint its
    config is one), ``base_config``, by which the base is run, and ``calibration``."""
    calibration = check_file(str(settings.calibration), f"{key}calibration")
    sides = digests_of(inputs)
    return sides | {"base_config": inputs.base_config, "calibration": sha256_file(calibration)}


def check_inputs(plan: Plan, settings: ResetConfig, key: str) -> None:
    """Find what is wrong with settings, architecture, tokenizer and calibration data without loading a model.

    Raises:
        InputError: as `measure`.
    """
    modules = modules_of(plan.sft.config, plan.sft.shapes, plan.sft.key)
    chosen(modules, settings.include, settings.exclude, f"{key}include")
    if settings.calibration:
        examples_of(plan.sft, settings, f"{key}calibration", plan.base)
    else:
        needs_template(load_tokenizer(plan.sft), plan.sft.key)


def measure(plan: Plan, settings: ResetConfig, inputs: Inputs, key: str, progress: Progress | None = None) -> ResetSet:
    """Find the neurons to reset.

    Pass one: entropy of the base before every response token. Pass two, example by example: the same of the SFT model,
    the positions where they differ most, and the SFT model's scores there. One model and one example are in memory at a
    time; of logits over the whole vocabulary only a slice is, of the autograd graph one layer.

    Args:
        plan: the two checkpoints.
        settings: with ``ratio`` and ``calibration``.
        inputs: digests of the two; only recorded.
        key: how errors name the settings before their own names: ``rejuvenation.reset.`` or ``--``.
        progress: called with ``("base" or "sft", examples done, examples in all)``.

    Returns:
        The set. Its statistics, all over the calibration set: ``examples``, ``cut`` (those longer than ``max_tokens``),
        ``tokens``, ``response_tokens``, ``positions`` (kept); ``entropy`` (mean in nats of ``base`` and ``sft``, over
        all response tokens and over those kept); ``reconstruction_error`` (of the kept logits: ``mean_absolute``,
        ``max_absolute``, and ``relative``, the sum of errors over the sum of magnitudes); ``cuts`` between chosen and
        other neurons, ``in_all`` and ``close`` (see `Tallies.cuts`); ``jaccard_of_halves`` by module (the sets of
        even and of odd examples; see `Tallies.overlaps`); ``device``, ``seconds``, ``peak_memory_bytes`` (see `usage`).

    Raises:
        InputError: see the modules of this room; also too few response tokens, or a residual stream that the
            architecture's constants do not describe.
    """
    began, device = time.monotonic(), device_of(settings.device, f"{key}device")
    reset_peak_memory(device)
    digests = input_digests(inputs, settings, key)
    examples = examples_of(plan.sft, settings, f"{key}calibration", plan.base)
    with fitting(device, f"{key}device"):
        found = _found(plan, settings, examples, digests, key, lambda side: load_model(side, device), ALONE, progress)
    return _with_usage(found, str(device), _seconds_since(began), peak_memory(device))


def measure_sharded(
    plan: Plan,
    settings: ResetConfig,
    examples: Sequence[Example],
    digests: Mapping[str, str],
    key: str,
    device: torch.device,
    progress: Progress | None = None,
) -> ResetSet:
    """Find the neurons to reset on models that fit no single device: the set that `measure` finds, on every rank.

    Called on every rank of `torch.distributed`'s default group, with equal arguments but for ``device``. One model at a
    time, in float32, is spread over the N ranks: each has 1/N of it, one layer (or the embedding, or the head) that is
    whole, twice while it is being gathered, and an example of its own. Nothing of the models is in memory afterwards;
    on the CPU glibc keeps much of what is freed, unless the environment has MALLOC_MMAP_THRESHOLD_.

    Args:
        plan: the two checkpoints, on a disk that every rank sees.
        settings: as for `measure`; ``device`` and ``calibration`` are not looked at.
        examples: from `dialogue.examples_of`.
        digests: from `input_digests`; only recorded.
        key: as for `measure`.
        device: this rank's; a GPU must be the process's current one, and the group's backend must serve it.
        progress: as for `measure`, after each round of one example a rank.

    Returns:
        The set as from `measure`; its ``device`` tells the number of ranks, ``seconds`` and ``peak_memory_bytes`` are
        the most of any rank.

    Raises:
        InputError: as `measure`, the same on every rank, whichever failed, and ``got`` says which. Not so, and the
            others may wait until the group's timeout, where a rank's process ends, or has no memory to gather a layer.
    """
    from .sharded.load import load_sharded

    def load(side: Checkpoint) -> Any:
        # The base is still there, in the reference cycles of its hooks.
        free(device)
        return load_sharded(side, device)

    began, ranks = time.monotonic(), World(device, key)
    reset_peak_memory(device)
    try:
        found = _found(plan, settings, examples, digests, key, load, ranks, progress)
    finally:
        free(device)
    seconds, peak = max(ranks.gather(_seconds_since(began))), max(ranks.gather(peak_memory(device)))
    return _with_usage(found, f"{device.type}, {ranks.size} ranks", seconds, peak)


def entropy_of(
    start: str | Path, settings: ResetConfig, *, key: str, start_key: str, progress: Progress | None = None
) -> float:
    """Mean entropy in nats of the checkpoint ``start`` before the response tokens of the calibration data.

    Args:
        start: a checkpoint directory: what was made of the two.
        settings: with ``calibration``.
        key: how errors name the settings before their own names.
        start_key: how errors name ``start``.
        progress: called with ``("output", examples done, examples in all)``.
    """
    checkpoint, device = read_checkpoint(str(start), start_key), device_of(settings.device, f"{key}device")
    examples = examples_of(checkpoint, settings, f"{key}calibration")
    with fitting(device, f"{key}device"):
        tick = _ticks(progress, "output", len(examples))
        values = scan(load_model(checkpoint, device), examples, start_key, tick)
    return torch.cat(values).double().mean().item()


def _found(
    plan: Plan,
    settings: ResetConfig,
    examples: Sequence[Example],
    digests: Mapping[str, str],
    key: str,
    load: Callable[[Checkpoint], Any],
    ranks: Ranks,
    progress: Progress | None,
) -> ResetSet:
    """The set with its statistics, all but what it took."""
    modules = modules_of(plan.sft.config, plan.sft.shapes, plan.sft.key)
    wanted = chosen(modules, settings.include, settings.exclude, f"{key}include")
    base = scan(
        ranks.own(lambda: load(plan.base), plan.base.key),
        examples,
        plan.base.key,
        _ticks(progress, "base", len(examples)),
        ranks,
    )
    seen, tallies = score(
        ranks.own(lambda: load(plan.sft), plan.sft.key),
        architecture_of(plan.sft.config, plan.sft.key),
        modules,
        wanted,
        examples,
        base,
        settings,
        plan.sft.key,
        _ticks(progress, "sft", len(examples)),
        ranks,
    )
    error, kept = sum((s.error for s in seen), Error()), [s.kept for s in seen]
    _check_reconstruction(error, plan.sft)
    selected = tallies.selected()
    overlaps = tallies.overlaps() if len(examples) > 1 else None
    statistics = {
        "examples": len(examples),
        "cut": sum(example.cut for example in examples),
        "tokens": sum(len(example.ids) for example in examples),
        "response_tokens": sum(len(example.targets) for example in examples),
        "positions": sum(map(len, kept)),
        "entropy": {"base": _means(base, kept), "sft": _means([s.entropy for s in seen], kept)},
        "reconstruction_error": error.summary(),
        "cuts": tallies.cuts(),
        "jaccard_of_halves": {m.name: overlaps[m.name] for m in wanted} if overlaps else None,
    }
    return ResetSet(
        str(plan.sft.config.get("model_type")),
        {m.name: Chosen(m.kind, m.count, selected[m.name]) for m in wanted},
        selection_settings(settings),
        digests,
        statistics,
    )


def _with_usage(found: ResetSet, device: str, seconds: float, peak: int) -> ResetSet:
    usage = {"device": device, "seconds": seconds, "peak_memory_bytes": peak}
    return replace(found, statistics={**found.statistics, **usage})


def _seconds_since(began: float) -> float:
    return round(time.monotonic() - began, 3)


def _ticks(progress: Progress | None, phase: str, total: int) -> Callable[[int], None]:
    return (lambda done: progress(phase, done, total)) if progress else (lambda done: None)


def _check_reconstruction(error: Error, sft: Checkpoint) -> None:
    if error.relative > _MAX_RECONSTRUCTION_ERROR:
        raise InputError(
            sft.key,
            f"a residual stream as {sft.config.get('model_type')} has, rebuilt to {_MAX_RECONSTRUCTION_ERROR:.0%}",
            f"a reconstruction error of {error.relative:.1%} of the logits",
            "correct its entry in rejuv_plugin/neurons/architectures.py, or use fusion alone",
        )


def _means(scanned: Sequence[Tensor], kept: Sequence[Sequence[int]]) -> dict[str, float]:
    of_kept = torch.cat([values[list(positions)] for values, positions in zip(scanned, kept, strict=True)])
    return {"mean": torch.cat(list(scanned)).double().mean().item(), "mean_kept": of_kept.double().mean().item()}
