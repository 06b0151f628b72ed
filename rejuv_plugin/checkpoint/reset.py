# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A reset set laid over a plan: which rows and columns of which tensors, from headers alone."""

from collections import defaultdict
from dataclasses import replace

from ..errors import InputError
from ..neurons.modules import Module, modules_of
from ..neurons.reset_set import ResetSet, check_fits
from .plan import Copy, Fuse, Plan, Reset, Slices


def plan_reset(plan: Plan, chosen: ResetSet, omega: float, key: str) -> Plan:
    """The plan that also resets the neurons of ``chosen`` (arXiv 2606.09932 v1, Eq. 5), in the same pass.

    Rows take their bias entries with them; the bias of a column projection belongs to no neuron and is fused.

    Args:
        plan: from `plan.plan_fusion`.
        chosen: which neurons.
        omega: weight of the base on them, in [0, 1].
        key: how errors name ``chosen``.

    Raises:
        InputError: the set is not of this model, the architecture is unknown, or a tensor of it is not fused.
    """
    modules = modules_of(plan.layout.config, plan.layout.shapes, plan.sft.key)
    check_fits(chosen, modules, key)
    slices = _slices(modules, chosen)
    fused = {operation.name for operation in plan.fused}
    for name in slices:
        if name not in fused:
            raise InputError(
                key,
                "neurons of tensors that are fused",
                f"{name}, which is not",
                "let only_tensors and exclude_tensors leave it in",
            )
    operations = tuple(_with(operation, slices) for operation in plan.operations)
    return replace(plan, operations=operations, reset=Reset(omega, chosen))


def _slices(modules: tuple[Module, ...], chosen: ResetSet) -> dict[str, Slices]:
    found: dict[str, list[int]] = defaultdict(list)
    dims = {}
    for module in modules:
        indices = chosen.modules[module.name].indices if module.name in chosen.modules else ()
        if not indices:
            continue
        dims[module.weight] = 0 if module.kind == "row" else 1
        found[module.weight] += [module.start + i for i in indices]
        if module.kind == "row" and module.bias:
            dims[module.bias] = 0
            found[module.bias] += [module.start + i for i in indices]
    return {name: Slices(dims[name], tuple(sorted(indices))) for name, indices in found.items()}


def _with(operation: Fuse | Copy, slices: dict[str, Slices]) -> Fuse | Copy:
    part = slices.get(operation.name)
    return replace(operation, reset=part) if part and isinstance(operation, Fuse) else operation
