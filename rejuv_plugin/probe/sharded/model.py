# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A model in parts that FSDP2 keeps: of each parameter every rank holds some rows, and a part is whole while in use.

FSDP2 stores and gathers; when it does is decided here. Its own hooks never run: they gather anew for every backward
pass, of which ranks have different numbers, and a rank that fails half-way must still take part in what the others wait
for.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import Shard

from ...neurons.architectures import Architecture
from ..gathered import gathers_with, takes_turns


class Part:
    """Modules that are gathered together: a decoder layer, a norm, an embedding with the head that is tied to it.

    Args:
        modules: with parameters on the meta device; afterwards on the mesh's device, with any values.
        mesh: of one dimension, over all ranks.
        turns: of the model.
    """

    def __init__(self, modules: Sequence[nn.Module], mesh: DeviceMesh, turns: "Turns") -> None:
        # FSDP2 puts its hooks on what it is given: a container that nobody calls.
        held: Any = nn.Sequential(*modules)
        fully_shard(held, mesh=mesh, shard_placement_fn=lambda parameter: _cut(parameter, mesh.size()))
        self._held: FSDPModule = held.to_empty(device=mesh.device_type)
        self._turns, self._depth = turns, 0
        for module in modules:
            gathers_with(module, self)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """The parameters are whole inside the block; see `gathered.gathered`."""
        if self._depth == 0:
            self._turns.take(self)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.free()

    def gather(self) -> None:
        """Make the parameters whole."""
        # What is gathered in inference mode could not take part in a graph later.
        with torch.inference_mode(False), torch.no_grad():
            self._held.unshard()

    def free(self) -> None:
        """Keep this rank's rows alone."""
        self._held.reshard()

    def gather_for_calls_of(self, module: nn.Module) -> None:
        """Whenever a module of this part is called, the part is whole."""
        stack = ExitStack()
        module.register_forward_pre_hook(lambda *_: stack.enter_context(self.gathered()))
        module.register_forward_hook(lambda *_: stack.close(), always_call=True)


class Turns:
    """Which part is gathered when: in a round of examples every rank gathers the same ones in the same order.

    Args:
        model: parameters on the meta device.
        architecture: its constants.
        mesh: as for `Part`.
    """

    def __init__(self, model: Any, architecture: Architecture, mesh: DeviceMesh) -> None:
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        norm, layers = model.get_submodule(architecture.final_norm), model.get_submodule(architecture.layers)
        first = Part([embedding, head] if head.weight is embedding.weight else [embedding], mesh, self)
        middle = [Part([layer], mesh, self) for layer in layers]
        last = Part([norm], mesh, self)
        self._forward = [first, *middle, last]
        self._head = first if head.weight is embedding.weight else Part([head], mesh, self)
        self._backward = [last, *reversed(middle)]
        for part, module in zip(self._forward, (embedding, *layers, norm), strict=True):
            part.gather_for_calls_of(module)
        self._order: list[Part] = []
        self._next = 0
        takes_turns(model, self)

    def rounds(self, attributing: bool) -> Callable[[], None]:
        """See `gathered.rounds`."""
        self._order = [*self._forward, self._head]
        if attributing:
            self._order += [self._head, *self._backward]
        self._next = 0
        return self._finish

    def take(self, part: Part) -> None:
        """Gather a part whose turn it is."""
        assert self._order[self._next : self._next + 1] == [part], "not in the order that all ranks gather in"
        part.gather()
        # Not before: a rank without memory for it must gather it again, or the others wait for ever.
        self._next += 1

    def _finish(self) -> None:
        for part in self._order[self._next :]:
            part.gather()
            part.free()
        self._next = 0


def _cut(parameter: Tensor, ranks: int) -> Shard:
    """By rows; stacked experts that do not go round by the rows of each, if those do."""
    experts_go_round = parameter.shape[0] % ranks == 0
    return Shard(1 if parameter.dim() == 3 and not experts_go_round and parameter.shape[1] % ranks == 0 else 0)
