# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""One checkpoint after the other: loaded, looked at, judged, forgotten."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..checkpoint.layout import Checkpoint
from ..checkpoint.progress import Progress
from ..errors import one_line
from ..monitors.monitor import quantiles
from ..monitors.neurons import NeuronMonitor
from ..monitors.representation import RankMonitor
from ..probe.answers import no_answers, sample_answers
from ..probe.decoder import ModelShape
from ..probe.entropy_scan import check_logits
from ..probe.load import fitting, load_model
from ..probe.reward import scores
from ..probe.usage import free
from . import answers, drift
from .calibration_pass import Tokens, read, watched
from .found import Found, finite, plain
from .hessian import top_eigenvalue
from .inputs import Inputs
from .likelihood import likelihood
from .made import made
from .sharpness import EXAMPLES, sharpness
from .signals import CATALOGUE, NAMES
from .verdict import judge


def diagnose(inputs: Inputs, progress: Progress | None = None) -> dict[str, Any]:
    """Measure the base and every checkpoint of the ladder, and judge the ladder. One model is in memory at a time.

    Args:
        inputs: from `inputs.read_inputs`.
        progress: called with a phase, the number of units done in it, and of all.

    Returns:
        What metrics.json holds: see docs/diagnosis.md. Numbers are finite or None.

    Raises:
        InputError: a checkpoint that transformers cannot load or that is not finite, a device that is too small.
        OSError: a file cannot be read.
    """
    began = time.monotonic()
    names = (inputs.base.label, *inputs.names)
    chain, rows = (inputs.base, *inputs.ladder), []
    base_tokens: list[Tokens] | None = None
    for i, (name, checkpoint) in enumerate(zip(names, chain, strict=True)):
        say = _named(progress, f"{name} ({i + 1} of {len(chain)})")
        found, tokens = _of_model(inputs, checkpoint, base_tokens, say)
        base_tokens = base_tokens or tokens
        if i > 0 and "drift" in inputs.settings.wanted:
            steps = chain[max(0, i - 2) : i + 1]
            found |= drift.moved(inputs.base, steps, inputs.layers, partial(say, "drift"))
        verdict = judge(found.numbers).to_json() if i > 0 else None
        row = {"name": name, "path": str(checkpoint.root), "role": "sft" if i else "base", "verdict": finite(verdict)}
        rows.append(row | found.to_json(NAMES))
    return _record(inputs, rows, time.monotonic() - began)


def _of_model(
    inputs: Inputs, checkpoint: Checkpoint, base: list[Tokens] | None, say: Progress
) -> tuple[Found, list[Tokens]]:
    """What needs a model in memory."""
    settings, found = inputs.settings, Found()
    tokens: list[Tokens] = []
    with fitting(inputs.device, "--device", "leave neurons out of --signals"):
        # Of what a model was before, graphs in cycles may hold on to memory.
        free(inputs.device)
        model = load_model(checkpoint, inputs.device)
        if settings.hessian or settings.wanted & {"likelihood", "neurons", "ranks", "sharpness"}:
            others = "answers,drift" if settings.samples else "drift"
            check_logits(model, inputs.examples[0].ids, checkpoint.key, f"use --signals {others}")
        if settings.wanted & {"likelihood", "neurons", "ranks"}:
            seen, tokens = _teacher_forced(inputs, model, checkpoint.key, say)
            found |= seen
        if "likelihood" in settings.wanted:
            found |= likelihood(tokens, base, settings.seed)
        if settings.samples:
            found |= _sampled(inputs, model, checkpoint.key, say)
        if "sharpness" in settings.wanted:
            names, tick = ("sharpness_sam", "critical_sharpness"), partial(say, "sharpness")
            found |= _if_it_fits(names, _NO_SHARPNESS, lambda: sharpness(model, inputs.examples, checkpoint.key, tick))
        if settings.hessian:
            found |= _if_it_fits(("hessian_top",), _NO_HESSIAN, lambda: _hessian(inputs, model, say))
    return found, tokens


_NO_SHARPNESS = "leave sharpness out of --signals, or use --device cpu"
_NO_HESSIAN = "leave out --hessian, or use --device cpu"


def _if_it_fits(names: Sequence[str], fix: str, measure: Callable[[], Found]) -> Found:
    """What ``measure`` finds; where the GPU has no room for it, why it does not: no verdict needs it, and what was
    measured before it may have taken hours."""
    try:
        return measure()
    except torch.OutOfMemoryError as error:
        reason = one_line(error)
    # What the failed attempt held is free only now that its error is gone.
    free(torch.device("cuda"))  # no other device has that error
    return Found(not_measured=dict.fromkeys(names, f"the GPU had no room for it ({reason}); to ask for less: {fix}"))


def _hessian(inputs: Inputs, model: Any, say: Progress) -> Found:
    examples = inputs.examples[:EXAMPLES]
    # Named so, as its bar seldom gets far: what there is in all is the most there can be.
    tick = partial(say, "Hessian, until it converges")
    value = top_eigenvalue(model, examples, inputs.settings.seed, tick)
    return Found({"hessian_top": plain(value)})


def _teacher_forced(inputs: Inputs, model: Any, key: str, say: Progress) -> tuple[Found, list[Tokens]]:
    shape, wanted = ModelShape.of(model.config), inputs.settings.wanted
    neurons = ranks = None
    if "neurons" in wanted:
        neurons = NeuronMonitor(shape.layers, shape.width, inputs.device, _no_look)
    if "ranks" in wanted:
        ranks = RankMonitor(shape.layers, shape.hidden, inputs.device, _no_look)
    with watched(model, neurons, ranks) as after_forward:
        tokens = read(
            model,
            inputs.examples,
            inputs.settings.temperature,
            key,
            backward=neurons is not None,
            after_forward=after_forward,
            tick=lambda done: say("calibration data", done, len(inputs.examples)),
        )
    found = Found()
    for monitor in (neurons, ranks):
        if monitor:
            values = monitor.values(monitor.sums())
            layers: dict[str, Sequence[float]] = {
                name.removeprefix("probe/"): each for name, each in values.layers.items()
            }
            numbers = {name.removeprefix("probe/"): plain(value) for name, value in values.numbers.items()}
            found |= Found(numbers | {name: plain(quantiles(each).get("q50")) for name, each in layers.items()}, layers)
    return found, tokens


def _no_look(name: str) -> None:
    """The pass was run before the monitors are asked for their sums."""


def _sampled(inputs: Inputs, model: Any, key: str, say: Progress) -> Found:
    settings = inputs.settings
    try:
        said = sample_answers(
            model,
            inputs.tokenizer,
            inputs.tasks,
            settings.group,
            settings.max_response,
            settings.temperature,
            settings.seed,
            lambda _, done, total: say("answers", done, total),
        )
    except FloatingPointError as error:
        raise no_answers(key, error) from None
    lengths = [[len(ids) for ids in group] for group in said.ids]
    found = answers.variety(lengths, said.entropy, said.top1, settings.seed)
    found |= answers.finished(said.finished, settings.seed)
    if inputs.reward:
        scored = scores(said, inputs.tasks, inputs.reward, partial(say, "scores"))
        found |= answers.passes(scored, settings.pass_score, settings.seed)
    return found


def _named(progress: Progress | None, name: str) -> Progress:
    def say(phase: str, done: int, total: int) -> None:
        if progress:
            progress(f"{name}: {phase}", done, total)

    return say


def _record(inputs: Inputs, rows: Sequence[Mapping[str, Any]], seconds: float) -> dict[str, Any]:
    settings, device = inputs.settings, inputs.device
    sampled = {
        "files": list(settings.prompts),
        "count": len(inputs.tasks),
        "group": settings.group,
        "temperature": settings.temperature,
        "max_response": settings.max_response,
        "reward": settings.reward,
    }
    return made("diagnosis", device, seconds) | {
        "settings": asdict(settings) | {"prompts": list(settings.prompts)},
        "base": {"name": inputs.base.label, "path": str(inputs.base.root)},
        "calibration": {
            "file": str(Path(settings.calibration)),
            "examples": len(inputs.examples),
            "response_tokens": sum(len(example.targets) for example in inputs.examples),
        },
        "prompts": sampled if settings.samples else None,
        "signals": [signal.to_json() for signal in CATALOGUE],
        "checkpoints": list(rows),
    }
