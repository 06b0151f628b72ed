# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A model on the calibration data: one pass, teacher-forced, that everything but drift and answers is read from."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..monitors.neurons import NeuronMonitor
from ..monitors.representation import RankMonitor
from ..ops.distribution import entropy
from ..probe.decoder import decoder_layers
from ..probe.dialogue import Example
from ..probe.entropy_scan import LOGITS, logits_of, not_finite
from ..probe.experts import Routed, experts_of, recorded

KEY = "--signals"


@dataclass(frozen=True)
class Tokens:
    """What a model thought before each of the n response tokens of an example; ``[n]``, on the CPU."""

    entropy: Tensor
    """Float32, nats, at the sampling temperature."""
    top1: Tensor
    """Float32, probability of the likeliest token at the sampling temperature."""
    nll: Tensor
    """Float32, nats, of the token that came, at temperature 1."""
    confidence: Tensor
    """Float32, probability of the likeliest token at temperature 1."""
    correct: Tensor
    """Bool: whether the likeliest token came."""


def read(
    model: Any,
    examples: Sequence[Example],
    temperature: float,
    key: str,
    *,
    backward: bool = False,
    after_forward: Callable[[], None] = lambda: None,
    tick: Callable[[int], None] = lambda done: None,
) -> list[Tokens]:
    """Teacher-force all examples, one at a time, in bounded memory for logits.

    Args:
        model: from `load.load_model`.
        examples: with targets.
        temperature: of the sampling.
        key: how errors name the model's checkpoint.
        backward: also add to the gradients of parameters that ask for one: of the mean NLL over all response tokens.
        after_forward: called for each example between the passes forward and backward.
        tick: called with the number of examples done.

    Raises:
        InputError: named ``key``; NaN or infinite activations.
    """
    scale = 1 / sum(len(example.targets) for example in examples)
    found = []
    for number, example in enumerate(examples):
        with torch.set_grad_enabled(backward):
            tokens = _one(model, example, temperature, scale if backward else None, after_forward)
        if not all(part.isfinite().all() for part in (tokens.entropy, tokens.nll)):
            raise not_finite(key, number)
        found.append(tokens)
        tick(number + 1)
    return found


def _one(
    model: Any, example: Example, temperature: float, scale: float | None, after_forward: Callable[[], None]
) -> Tokens:
    ids = torch.tensor(example.ids, device=model.device)
    targets = torch.tensor(example.targets, device=model.device)
    hidden = model.base_model(input_ids=ids[None], use_cache=False).last_hidden_state[0, targets - 1]
    after_forward()
    # Cut off, so that the logits of one part are gone before those of the next are made.
    leaf = hidden.detach().requires_grad_(scale is not None)
    head = model.get_output_embeddings()
    parts = []
    for rows, said in zip(
        *(t.split(max(1, LOGITS // head.weight.shape[0])) for t in (leaf, ids[targets])), strict=True
    ):
        logits = logits_of(head(rows), model).float()
        log_p = logits.log_softmax(-1)
        nll = -log_p.gather(1, said[:, None])[:, 0]
        if scale is not None:
            (nll.sum() * scale).backward()
        parts.append(_tokens(logits.detach(), log_p.detach(), nll.detach(), said, temperature))
    if scale is not None:
        hidden.backward(leaf.grad)
    return Tokens(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


def _tokens(logits: Tensor, log_p: Tensor, nll: Tensor, said: Tensor, temperature: float) -> tuple[Tensor, ...]:
    most, guess = log_p.max(-1)
    cool = logits / temperature
    top1 = most if temperature == 1 else cool.log_softmax(-1).amax(-1)
    return entropy(cool), top1.exp(), nll, most.exp(), guess == said


def summed_nll(model: Any, example: Example) -> Tensor:
    """NLL in nats of an example's response tokens, summed: a scalar, in the graph if there is one."""
    ids, targets = (torch.tensor(t, device=model.device) for t in (example.ids, example.targets))
    hidden = model.base_model(input_ids=ids[None], use_cache=False).last_hidden_state[0, targets - 1]
    logits = logits_of(model.get_output_embeddings()(hidden), model).float()
    return torch.nn.functional.cross_entropy(logits, ids[targets], reduction="sum")


@contextmanager
def differentiable(model: Any) -> Iterator[None]:
    """Inside the block all parameters ask for a gradient; after it those that did before, and none has one."""
    asked = [p.requires_grad for p in model.parameters()]
    model.requires_grad_(True)
    try:
        yield
    finally:
        for p, ask in zip(model.parameters(), asked, strict=True):
            p.grad = None
            p.requires_grad_(ask)


@contextmanager
def watched(model: Any, neurons: NeuronMonitor | None, ranks: RankMonitor | None) -> Iterator[Callable[[], None]]:
    """Let the monitors see all passes inside the block; no hook is left at its end.

    Args:
        model: from `load.load_model`.
        neurons: activations and, where there is a pass backward, gradients.
        ranks: of the residual stream.

    Yields:
        To be called for each example between the passes.

    Raises:
        InputError: named ``--signals``; MLPs that the monitors do not know.
    """
    layers: Iterable[Any] = ()
    if neurons or ranks:
        count = model.config.get_text_config().num_hidden_layers
        layers = decoder_layers(model, count, KEY, "leave neurons and ranks out")
    experts: list[tuple[int, dict[int, Routed]]] = []
    with ExitStack() as stack:
        if neurons:
            # Parameters ask for no gradient, and activations have one nevertheless.
            start = model.get_input_embeddings().register_forward_hook(lambda *args: _wants_gradient(args[-1]))
            stack.callback(start.remove)
        for number, layer in enumerate(layers):
            if ranks and number in ranks.places:
                stack.callback(layer.register_forward_hook(_residual(ranks, number)).remove)
            mlp = getattr(layer, "mlp", None)
            down = getattr(mlp, "down_proj", None)
            if neurons and down is not None:
                neurons.has(number, down.in_features)
                stack.callback(down.register_forward_pre_hook(_dense(neurons, number)).remove)
            elif neurons:
                module = experts_of(mlp, KEY, "leave neurons out")
                neurons.has(number, module.down_proj.shape[0] * module.down_proj.shape[2])
                experts.append((number, stack.enter_context(recorded(module))))

        def after_forward() -> None:
            for number, seen in experts:
                for expert, routed in seen.items():
                    assert neurons is not None
                    _see(neurons, number, routed.inner, expert * routed.inner.shape[-1])
                seen.clear()

        yield after_forward


def _wants_gradient(output: Tensor) -> None:
    if torch.is_grad_enabled() and not output.requires_grad:
        output.requires_grad_()


def _residual(ranks: RankMonitor, layer: int) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        ranks.saw(layer, hidden.detach().flatten(0, -2))

    return hook


def _dense(neurons: NeuronMonitor, layer: int) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        _see(neurons, layer, args[0], 0)

    return hook


def _see(neurons: NeuronMonitor, layer: int, inner: Tensor, first: int) -> None:
    neurons.saw("redo", layer, inner.detach().flatten(0, -2), first)
    if inner.requires_grad:
        inner.register_hook(lambda gradient: neurons.saw("grama", layer, gradient.flatten(0, -2), first))
