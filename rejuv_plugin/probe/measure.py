# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""From two checkpoints and calibration data to the reset set: two passes (arXiv 2606.09932 v1, Eq. 2 to 4)."""

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ..checkpoint.digest import Progress, sha256_files
from ..checkpoint.layout import Checkpoint
from ..checkpoint.plan import Plan
from ..checkpoint.provenance import Inputs
from ..config import ResetConfig
from ..errors import InputError
from ..neurons.architectures import architecture_of
from ..neurons.modules import Module, chosen, modules_of
from ..neurons.reset_set import Chosen, ResetSet, jaccard
from ..ops.attribution import is_finite
from ..ops.selection import Tally, select
from .attribute import Attribution, attribute
from .calibration import check_file, read_dialogues
from .capture import trace
from .dialogue import Example, examples_of
from .entropy_scan import entropies, largest_gaps, not_finite
from .load import device_of, load_model
from .usage import peak_memory, reset_peak_memory

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
    """SHA-256 of what a set is made from: ``base``, ``sft`` (each over its files' digests) and ``calibration``."""
    calibration = check_file(str(settings.calibration), f"{key}calibration")
    sides = {
        side: hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
        for side, files in (("base", inputs.base), ("sft", inputs.sft))
    }
    return sides | {"calibration": sha256_files([calibration])[calibration]}


def check_inputs(plan: Plan, settings: ResetConfig, key: str) -> None:
    """Find what is wrong with settings, architecture and calibration data without loading a model.

    Raises:
        InputError: as `measure`.
    """
    modules = modules_of(plan.sft.config, plan.sft.shapes, plan.sft.key)
    chosen(modules, settings.include, settings.exclude, f"{key}include")
    if settings.calibration:
        read_dialogues(settings.calibration, f"{key}calibration")


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
        ``max_absolute``, and ``relative``, the sum of errors over the sum of magnitudes); ``jaccard_of_halves`` by
        module (the sets of even and of odd examples); ``device``, ``seconds``, ``peak_memory_bytes`` (see `usage`).

    Raises:
        InputError: see the modules of this room; also too few response tokens, or a residual stream that the
            architecture's constants do not describe.
    """
    began, device = time.monotonic(), device_of(settings.device, f"{key}device")
    reset_peak_memory(device)
    digests = input_digests(inputs, settings, key)
    modules = modules_of(plan.sft.config, plan.sft.shapes, plan.sft.key)
    wanted = chosen(modules, settings.include, settings.exclude, f"{key}include")
    examples = examples_of(plan.sft, settings, f"{key}calibration")
    base = scan(plan.base, examples, device, _ticks(progress, "base", len(examples)))
    tick, sft, kept = _ticks(progress, "sft", len(examples)), [], []
    halves, errors = [_tallies(wanted, settings), _tallies(wanted, settings)], _Errors()
    architecture, model = architecture_of(plan.sft.config, plan.sft.key), load_model(plan.sft, device)
    for number, example in enumerate(examples):
        seen = trace(model, architecture, torch.tensor(example.ids, device=device))
        sft.append(entropies(model, seen.hidden[torch.tensor(example.targets) - 1], plan.sft.key, number))
        kept.append(largest_gaps(base[number], sft[number], settings.positions))
        targets = [example.targets[i] for i in kept[number]]
        found = attribute(model, architecture, modules, seen, targets, each=settings.gradient == "each")
        if not all(is_finite(scores) for scores in (*found.scores.values(), found.rebuilt)):
            raise not_finite(plan.sft.key, number)
        errors.add(found)
        for module in wanted:
            halves[number % 2][module.name].add(found.scores[module.name])
        tick(number + 1)
    _check_reconstruction(errors, plan.sft)
    whole = {name: halves[0][name] | halves[1][name] for name in halves[0]}
    selected = {m.name: Chosen(m.kind, m.count, _selected(m, whole, settings)) for m in wanted}
    statistics = {
        "examples": len(examples),
        "cut": sum(example.cut for example in examples),
        "tokens": sum(len(example.ids) for example in examples),
        "response_tokens": sum(len(example.targets) for example in examples),
        "positions": sum(map(len, kept)),
        "entropy": {"base": _means(base, kept), "sft": _means(sft, kept)},
        "reconstruction_error": errors.summary(),
        "jaccard_of_halves": _overlaps(wanted, halves, settings) if len(examples) > 1 else None,
        "device": str(device),
        "seconds": round(time.monotonic() - began, 3),
        "peak_memory_bytes": peak_memory(device),
    }
    model_type = str(plan.sft.config.get("model_type"))
    return ResetSet(model_type, selected, selection_settings(settings), digests, statistics)


def scan(
    checkpoint: Checkpoint, examples: Sequence[Example], device: torch.device, tick: Any = lambda done: None
) -> list[Tensor]:
    """The entropy of a checkpoint before each target of each example: ``[len(targets)]`` float32, in nats."""
    model, found = load_model(checkpoint, device), []
    for number, example in enumerate(examples):
        with torch.inference_mode():
            ids = torch.tensor([example.ids], device=device)
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
        found.append(entropies(model, hidden[torch.tensor(example.targets) - 1], checkpoint.key, number))
        tick(number + 1)
    return found


def _ticks(progress: Progress | None, phase: str, total: int) -> Any:
    return (lambda done: progress(phase, done, total)) if progress else (lambda done: None)


def _check_reconstruction(errors: "_Errors", sft: Checkpoint) -> None:
    if errors.relative > _MAX_RECONSTRUCTION_ERROR:
        raise InputError(
            sft.key,
            f"a residual stream as {sft.config.get('model_type')} has, rebuilt to {_MAX_RECONSTRUCTION_ERROR:.0%}",
            f"a reconstruction error of {errors.relative:.1%} of the logits",
            "correct its entry in rejuv_plugin/neurons/architectures.py, or use fusion alone",
        )


def _tallies(modules: Iterable[Module], settings: ResetConfig) -> dict[str, Tally]:
    return {m.name: Tally(m.count, settings.ratio, signed=settings.ranking == "signed") for m in modules}


def _selected(module: Module, tallies: Mapping[str, Tally], settings: ResetConfig) -> tuple[int, ...]:
    return select(tallies[module.name], settings.rule, settings.select, settings.seed, module.name, settings.cap)


def _overlaps(
    modules: Iterable[Module], halves: Sequence[Mapping[str, Tally]], settings: ResetConfig
) -> dict[str, float]:
    return {m.name: jaccard(*(set(_selected(m, half, settings)) for half in halves)) for m in modules}


def _means(scanned: Sequence[Tensor], kept: Sequence[Sequence[int]]) -> dict[str, float]:
    of_kept = torch.cat([values[list(positions)] for values, positions in zip(scanned, kept, strict=True)])
    return {"mean": torch.cat(list(scanned)).double().mean().item(), "mean_kept": of_kept.double().mean().item()}


class _Errors:
    """Sums of ``|z~ - z|`` and ``|z|`` over kept positions."""

    def __init__(self) -> None:
        self.count, self.errors, self.largest, self.magnitude = 0, 0.0, 0.0, 0.0

    def add(self, found: Attribution) -> None:
        error = (found.rebuilt.double() - found.logits.double()).abs()
        self.count += len(error)
        self.errors += error.sum().item()
        self.largest = max(self.largest, error.max().item())
        self.magnitude += found.logits.double().abs().sum().item()

    @property
    def relative(self) -> float:
        return self.errors / self.magnitude if self.magnitude else 0.0

    def summary(self) -> dict[str, float]:
        mean = self.errors / self.count
        return {"mean_absolute": mean, "max_absolute": self.largest, "relative": self.relative}
