# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a loader reads at a time: a tensor, or, of a stack of experts, the matrix of one of them."""

from collections.abc import Mapping

from ..checkpoint.plan import Fuse, Plan
from ..ops.drift import Drift

# The kernels of convolutions are narrower, the matrices of experts wider.
_WIDTH = 32


def is_stack(operation: Fuse) -> bool:
    """Whether a tensor is stacked matrices ``[experts, ..., rows, columns]``, as far as its shape tells."""
    shape = operation.sft.shape
    return len(shape) >= 3 and min(shape[-2:]) >= _WIDTH


def expert_of(name: str, index: int) -> str:
    """How an expert of the stack ``name`` is called."""
    return f"{name}[{index}]"


def parts_of(operation: Fuse) -> list[str]:
    """The names of a stack's experts; of another tensor its own."""
    if not is_stack(operation):
        return [operation.name]
    return [expert_of(operation.name, i) for i in range(operation.sft.shape[0])]


def parts(plan: Plan, apart: bool) -> list[str]:
    """The names of all that is fused, in the order of the plan.

    Args:
        plan: of the output.
        apart: name the experts of a stack, not the stack.
    """
    return [part for operation in plan.fused for part in (parts_of(operation) if apart else [operation.name])]


def tensor_of(part: str) -> str:
    """The name of the tensor that a part is of."""
    return part.partition("[")[0]


def by_tensor(plan: Plan, found: Mapping[str, tuple[Drift, Drift]]) -> dict[str, tuple[Drift, Drift]]:
    """What is known by part, by tensor: added up in the order of the plan, whoever read the parts; what was not read is
    left out."""
    sums: dict[str, tuple[Drift, Drift]] = {}
    for operation in plan.fused:
        for part in dict.fromkeys((operation.name, *parts_of(operation))):
            if part in found:
                sft, output = sums.get(operation.name, (Drift(), Drift()))
                sums[operation.name] = sft + found[part][0], output + found[part][1]
    return sums
