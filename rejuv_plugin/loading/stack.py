# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A stack of experts of which no expert is fused before it is taken.

megatron-bridge takes an expert after the other out of a stack, ``stack[i]``. Some of its versions read the stack again
for each, others keep all stacks of a model until they are done: either is cheap with views of a mapped file, and would
not be with fused tensors.
"""

from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from .values import Values

_aten = torch.ops.aten


class Stack(torch.Tensor):
    """A tensor for all that asks, but without memory. Taking one expert, ``stack[i]``, fuses that expert; anything else
    that reads elements fuses all of them first. Writing to it raises, but for ``out=``, where it would be lost.

    Args:
        values: what makes it.
        name: of the tensor, ``[experts, ..., rows, columns]``.
        turned: rows and columns are swapped.
    """

    @staticmethod
    def __new__(cls, values: Values, name: str, turned: bool = False) -> "Stack":
        like = values.empty(name, "meta")
        like = like.mT if turned else like
        made = torch.Tensor._make_wrapper_subclass(cls, like.shape, strides=like.stride(), dtype=like.dtype)  # type: ignore[attr-defined]
        made._values, made._name, made._turned = values, name, turned
        return made

    _values: Values
    _name: str
    _turned: bool

    # At the operators, which is where loaders read: what takes memory past them (dlpack) finds none.
    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        stack = args[0]
        if function is _aten.select.int and args[1] in (0, -stack.dim()):
            return stack._seen(stack._values.tensor(stack._name, range(len(stack))[args[2]]))
        if function is _aten.transpose.int and {at % stack.dim() for at in args[1:]} == {
            stack.dim() - 2,
            stack.dim() - 1,
        }:
            return Stack(stack._values, stack._name, not stack._turned)
        if function in (_aten.detach.default, _aten.alias.default):
            return Stack(stack._values, stack._name, stack._turned)
        if function._schema.is_mutable and isinstance(stack, Stack):
            raise TypeError(f"{stack}: expected to be read only, got {function}")
        args, kwargs = tree_map_only(Stack, lambda one: one._seen(one._values.tensor(one._name)), (args, kwargs or {}))
        return function(*args, **kwargs)

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(f"{self}: expected to be read only, got [{index}] = ...")

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Stack({self._name})"

    def _seen(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.mT if self._turned else tensor
