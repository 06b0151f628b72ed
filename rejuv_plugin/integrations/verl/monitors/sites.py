# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Hooks on a model's modules that know which tokens they look at."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from ....errors import InputError
from ....monitors.attention import AttentionMonitor
from ....monitors.neurons import NeuronMonitor
from ....monitors.representation import RankMonitor
from ....probe.decoder import ModelShape
from .guarded import Guard


@dataclass(frozen=True)
class Span:
    """Where one sequence is in the first two dimensions of an activation."""

    along: slice
    """In the dimension of tokens."""
    at: int
    """In the other one."""


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a micro-batch are in this rank's activations."""

    counted: Tensor
    """Bool, of the first two dimensions of what an MLP reads: real tokens, of sequences that are no copies."""
    residual: Tensor
    """The same for the residual stream, which may be cut up over ranks; each token is counted on one of them."""
    sequences: tuple[Span, ...]
    """Those that are counted, in what the attention kernel reads."""

    def of_mlp(self, values: Tensor) -> Tensor:
        """``[n, d]``: of ``[., ., d]``, tokens that are `counted`."""
        return values.flatten(0, 1).index_select(0, self._counted_at)

    def of_residual(self, values: Tensor) -> Tensor:
        """``[n, d]``: of ``[., ., d]``, tokens that are counted in the `residual` stream."""
        return values.flatten(0, 1).index_select(0, self._residual_at)

    # Once a micro-batch, not in every layer: the host waits for the device to know how many there are.
    @cached_property
    def _counted_at(self) -> Tensor:
        return self.counted.flatten().nonzero()[:, 0]

    @cached_property
    def _residual_at(self) -> Tensor:
        return self.residual.flatten().nonzero()[:, 0]


@dataclass(frozen=True)
class Watched:
    """The monitors that look at a pass, those that are on, each with what its hooks are run by."""

    neurons: tuple[NeuronMonitor, Guard] | None
    ranks: tuple[RankMonitor, Guard] | None
    attention: tuple[AttentionMonitor, Guard] | None


NOBODY = Watched(None, None, None)


class Sites(Protocol):
    """Where to look in an engine's model."""

    shape: ModelShape
    multiple: int
    """Of what the number of micro-batches must be one."""
    options: dict[str, Any]
    """What verl reads from a batch beside its tensors."""
    modules: Sequence[nn.Module]

    def layouts(self, marks: Sequence[TensorDict]) -> list[Layout]:
        """Of micro-batches, on the device, whose token ids are 1 where a token counts, else 0."""

    def watch(self, hooks: "Hooks", watched: Watched) -> None:
        """Hook this rank's layers."""


class Turns:
    """Which micro-batch it is: modules see them in order, in the forward pass and, when their activations are not kept
    but computed again, once more within the backward pass."""

    def __init__(self) -> None:
        self._seen = [0, 0]

    def next(self) -> tuple[int, bool]:
        """Its number, and whether this is the second time."""
        # torch's own checkpointing asks the same way.
        again = torch._C._current_graph_task_id() != -1
        self._seen[again] += 1
        return self._seen[again] - 1, again

    @property
    def done(self) -> int:
        """How many micro-batches there were."""
        return self._seen[0]


class Hooks:
    """To be removed by closing ``stack``.

    Args:
        layouts: of the micro-batches.
        stack: what undoes all.
    """

    def __init__(self, layouts: Sequence[Layout], stack: ExitStack) -> None:
        self.layouts, self.stack = layouts, stack

    def turns(self, name: str, module: nn.Module, guard: Guard) -> Turns:
        """Turns for a hook on ``module``, of the monitor that is called ``name``. If the pass ends well and the hook
        did not run in each micro-batch, ``guard`` keeps an `InputError`: sums would be wrong, or nothing, unsaid."""
        turns = Turns()

        @guard
        def check() -> None:
            if turns.done < len(self.layouts):
                raise InputError(
                    f"rejuvenation.monitors.{name}",
                    f"{type(module).__name__} to be called for each of {len(self.layouts)} micro-batches",
                    f"{turns.done} calls: something runs the layers without it",
                    "turn that off (Megatron's use_transformer_engine_op_fuser, CUDA graphs), or set "
                    f"rejuvenation.monitors.{name}=false",
                )

        self.stack.push(lambda kind, *_: None if kind else check())
        return turns

    def inputs(
        self,
        name: str,
        module: nn.Module,
        guard: Guard,
        see: Callable[..., None],
        see_gradient: Callable[[Tensor, Layout], None] | None = None,
    ) -> None:
        """Show the positional arguments of a module, and the gradient with respect to the first, once a micro-batch.

        Args:
            name: as `turns`.
            module: whose forward pass.
            guard: of what sees.
            see: gets the layout, then the arguments, to be left as they are.
            see_gradient: gets the layout, and the gradient, to be left as it is.
        """
        turns, awaited = self.turns(name, module, guard), set()

        @guard
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            turn, again = turns.next()
            layout = self.layouts[turn]
            if not again:
                see(layout, *args)
            # Where activations are computed again, the first pass may have had no graph.
            if see_gradient and args[0].requires_grad and turn not in awaited:
                awaited.add(turn)
                args[0].register_hook(guard(lambda gradient: see_gradient(layout, gradient)))

        self.stack.callback(module.register_forward_pre_hook(hook).remove)

    def outputs(self, name: str, module: nn.Module, guard: Guard, see: Callable[[Layout, Tensor], None]) -> None:
        """Show what a module returns, or the first of it, once a micro-batch."""
        turns = self.turns(name, module, guard)

        @guard
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            turn, again = turns.next()
            if not again:
                see(self.layouts[turn], output[0] if isinstance(output, tuple) else output)

        self.stack.callback(module.register_forward_hook(hook).remove)


def neuron_hooks(
    hooks: Hooks, module: nn.Module, watched: tuple[NeuronMonitor, Guard], layer: int, first: int, width: int
) -> None:
    """Look at a dense MLP's down projection.

    Args:
        hooks: of this pass.
        module: the down projection.
        watched: who looks.
        layer: its number in the model.
        first: number of this rank's first neuron.
        width: of all ranks' neurons.
    """
    monitor, guard = watched
    monitor.has(layer, width)
    hooks.inputs(
        monitor.name,
        module,
        guard,
        lambda layout, h, *_: monitor.saw("redo", layer, layout.of_mlp(h.detach()), first),
        lambda layout, gradient: monitor.saw("grama", layer, layout.of_mlp(gradient), first),
    )


def rank_hooks(hooks: Hooks, module: nn.Module, watched: tuple[RankMonitor, Guard], layer: int) -> None:
    """Look at what a decoder layer leaves in the residual stream."""
    monitor, guard = watched
    if layer in monitor.places:
        hooks.outputs(
            monitor.name,
            module,
            guard,
            lambda layout, hidden: monitor.saw(layer, layout.of_residual(hidden.detach())),
        )
