# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""From two checkpoints and calibration data to the reset set: two passes (arXiv 2606.09932 v1, Eq. 2 to 4)."""

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint.digest import Progress, sha256_files
from ..checkpoint.layout import Checkpoint, read_checkpoint
from ..checkpoint.plan import Plan
from ..checkpoint.provenance import Inputs
from ..config import ResetConfig
from ..errors import InputError
from ..neurons.architectures import Architecture, architecture_of
from ..neurons.modules import Module, chosen, modules_of
from ..neurons.reset_set import Chosen, ResetSet, jaccard
from ..ops.attribution import is_finite
from ..ops.selection import Tally, select
from .attribute import Attribution, attribute
from .capture import trace
from .dialogue import Example, examples_of, needs_template
from .entropy_scan import entropies, largest_gaps, not_finite
from .load import device_of, fitting, load_model, load_tokenizer
from .prompts import check_file
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
    """Find what is wrong with settings, architecture, tokenizer and calibration data without loading a model.

    Raises:
        InputError: as `measure`.
    """
    modules = modules_of(plan.sft.config, plan.sft.shapes, plan.sft.key)
    chosen(modules, settings.include, settings.exclude, f"{key}include")
    if settings.calibration:
        examples_of(plan.sft, settings, f"{key}calibration")
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
    with fitting(device, f"{key}device"):
        base = scan(load_model(plan.base, device), examples, plan.base.key, _ticks(progress, "base", len(examples)))
        found = score(
            load_model(plan.sft, device),
            architecture_of(plan.sft.config, plan.sft.key),
            modules,
            wanted,
            examples,
            base,
            settings,
            plan.sft.key,
            _ticks(progress, "sft", len(examples)),
        )
    _check_reconstruction(found.errors, plan.sft)
    first, second = found.halves
    whole = {name: first[name] | second[name] for name in first}
    selected = {m.name: Chosen(m.kind, m.count, _selected(m, whole, settings)) for m in wanted}
    statistics = {
        "examples": len(examples),
        "cut": sum(example.cut for example in examples),
        "tokens": sum(len(example.ids) for example in examples),
        "response_tokens": sum(len(example.targets) for example in examples),
        "positions": sum(map(len, found.kept)),
        "entropy": {"base": _means(base, found.kept), "sft": _means(found.entropy, found.kept)},
        "reconstruction_error": found.errors.summary(),
        "jaccard_of_halves": _overlaps(wanted, found.halves, settings) if len(examples) > 1 else None,
        "device": str(device),
        "seconds": round(time.monotonic() - began, 3),
        "peak_memory_bytes": peak_memory(device),
    }
    model_type = str(plan.sft.config.get("model_type"))
    return ResetSet(model_type, selected, selection_settings(settings), digests, statistics)


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


@dataclass(frozen=True)
class Scored:
    """What the second pass leaves."""

    entropy: list[Tensor]
    """Of the SFT model, for each example ``[len(targets)]`` float32, in nats."""
    kept: list[list[int]]
    """For each example the indices, among its targets, of the positions that were kept."""
    halves: tuple[dict[str, Tally], dict[str, Tally]]
    """By module, over even and over odd examples."""
    errors: "_Errors"


def scan(model: Any, examples: Sequence[Example], key: str, tick: Any = lambda done: None) -> list[Tensor]:
    """Pass one: a model's entropy before each target of each example: ``[len(targets)]`` float32, in nats.

    Raises:
        InputError: named ``key``; NaN or infinite activations.
    """
    found = []
    for number, example in enumerate(examples):
        with torch.inference_mode():
            ids = torch.tensor([example.ids], device=model.device)
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
        found.append(entropies(model, hidden[torch.tensor(example.targets) - 1], key, number))
        tick(number + 1)
    return found


def score(
    model: Any,
    architecture: Architecture,
    modules: Sequence[Module],
    wanted: Sequence[Module],
    examples: Sequence[Example],
    base: Sequence[Tensor],
    settings: ResetConfig,
    key: str,
    tick: Any = lambda done: None,
) -> Scored:
    """Pass two: the SFT model's entropies, the positions with the largest gap to ``base``, and the scores there.

    Args:
        model: the SFT model.
        architecture: its constants.
        modules: all of its modules with neurons.
        wanted: those to tally.
        examples: as for `scan`.
        base: from `scan`, of the base.
        settings: positions, gradient, ratio, ranking.
        key: how errors name the SFT checkpoint.
        tick: called with the number of examples done.

    Raises:
        InputError: named ``key``; NaN or infinite activations.
    """
    found = Scored([], [], (_tallies(wanted, settings), _tallies(wanted, settings)), _Errors())
    for number, (example, before) in enumerate(zip(examples, base, strict=True)):
        seen = trace(model, architecture, torch.tensor(example.ids, device=model.device))
        after = entropies(model, seen.hidden[torch.tensor(example.targets) - 1], key, number)
        kept = largest_gaps(before, after, settings.positions)
        targets = [example.targets[i] for i in kept]
        said = attribute(model, architecture, modules, seen, targets, each=settings.gradient == "each")
        if not all(is_finite(scores) for scores in (*said.scores.values(), said.rebuilt)):
            raise not_finite(key, number)
        found.entropy.append(after)
        found.kept.append(kept)
        found.errors.add(said)
        for module in wanted:
            found.halves[number % 2][module.name].add(said.scores[module.name])
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
