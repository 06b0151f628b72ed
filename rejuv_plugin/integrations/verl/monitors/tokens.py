# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Entropy and top-1 mass from the logits of verl's own training forward."""

import functools
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from ....errors import InputError
from ....monitors.monitor import Sums
from ....monitors.tokens import TokensMonitor
from ....ops.distribution import entropy_and_top1, moments, rebased
from ..engine import is_megatron
from .guarded import Guard

_ENTROPY, _TOP1 = "rejuvenation_entropy", "rejuvenation_top1"
# verl's own floor.
_COLDEST = 1e-8


def attach(engine: Any) -> TokensMonitor:
    """Watch an actor's engine, FSDP or Megatron, from its next training forward on.

    Args:
        engine: verl's, of a language model; methods of the instance are wrapped, what they return is not changed.
    """
    return _OfMegatron(engine) if is_megatron(engine) else _OfFSDP(engine)


class _OfEngine(TokensMonitor):
    """Looks at training forwards until the first optimizer step after `sums`: that is the policy before its updates."""

    def __init__(self, engine: Any) -> None:
        super().__init__()
        self._guard, self._stepped = Guard(), False
        step = engine.optimizer_step

        @functools.wraps(step)
        def stepped(*args: Any, **kwargs: Any) -> Any:
            self._stepped = True
            return step(*args, **kwargs)

        engine.optimizer_step = stepped

    def looks(self) -> bool:
        """The same on all ranks but for failures."""
        return torch.is_grad_enabled() and not self._stepped

    def sums(self) -> Sums:
        self._stepped = False
        sums = super().sums()
        self._guard.check()
        return sums


class _OfFSDP(_OfEngine):
    """Each rank counts the rows whose logits it has: under Ulysses those are parts of its group's sequences."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        prepare = engine.prepare_model_outputs

        @functools.wraps(prepare)
        def prepared(output: Any, output_args: Any, micro_batch: Any, *args: Any, **kwargs: Any) -> Any:
            # Before verl, which may scale the logits in place.
            if self.looks() and _is_rollout(micro_batch) and not self._guard.error:
                with self._guard, torch.no_grad():
                    self._look(engine, output, output_args, micro_batch)
            return prepare(output, output_args, micro_batch, *args, **kwargs)

        engine.prepare_model_outputs = prepared

    def _look(self, engine: Any, output: Any, output_args: dict, micro_batch: Any) -> None:
        logits = getattr(output, "logits", None)
        if logits is None:
            raise _no_logits()
        rows = response_rows(micro_batch)
        if (temperature := output_args.get("temperature_rmpad")) is not None:
            # [1, tokens / sp, vocabulary]: the packed sequences, or this rank's part of them.
            if engine.use_ulysses_sp:
                rows = rows - engine.ulysses_device_mesh["sp"].get_local_rank() * len(temperature)
                rows = rows[(rows >= 0) & (rows < len(temperature))]
            temperature = temperature[rows]
        else:
            # [sequences, longest, vocabulary]
            offsets = micro_batch["input_ids"].offsets()
            sequence = torch.searchsorted(offsets, rows, right=True) - 1
            temperature = output_args["temperature"][sequence]
            rows = sequence * logits.shape[1] + rows - offsets[sequence]
        if isinstance(logits, DTensor):
            owned, logits = not any(logits.device_mesh.get_coordinate() or ()), logits.full_tensor()
            rows, temperature = (rows, temperature) if owned else (rows[:0], temperature[:0])
        logits = logits.detach().flatten(0, -2)
        temperature = temperature.float().clamp(min=_COLDEST)
        self.add(*entropy_and_top1(moments(logits, rows, temperature)[1:]))


class _OfMegatron(_OfEngine):
    """The two values of each token take the way of verl's log-probabilities, through its unpacking, and are taken out
    of its hands before it looks at them."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        process, prepare = engine._lm_head_logits_processor, engine.prepare_model_outputs
        if getattr(engine.engine_config, "dynamic_context_parallel", False):
            self._guard.error = InputError(
                "actor_rollout_ref.actor.megatron.dynamic_context_parallel",
                "false for the monitor of tokens",
                "true, where ranks hold other sequences than they were sent",
                "set rejuvenation.monitors.tokens=false",
            )

        @functools.wraps(process)
        def processed(logits: Tensor, label: Tensor, temperature: Tensor, **kwargs: Any) -> dict[str, Tensor]:
            # Before verl, which scales the logits in place.
            found = self._look(logits, temperature) if self.looks() else {}
            return process(logits, label, temperature, **kwargs) | found

        @functools.wraps(prepare)
        def prepared(output: Any, data: Any) -> Any:
            if self.looks() and _is_rollout(data):
                with self._guard, torch.no_grad():
                    if _ENTROPY not in output:
                        raise _no_logits()
                    if engine.is_mp_src_rank_with_outputs():
                        rows = response_rows(data)
                        self.add(*(output[key].values().detach()[rows] for key in (_ENTROPY, _TOP1)))
            output = {key: value for key, value in output.items() if key not in (_ENTROPY, _TOP1)}
            return prepare(output, data)

        engine._lm_head_logits_processor, engine.prepare_model_outputs = processed, prepared

    def _look(self, logits: Tensor, temperature: Tensor) -> dict[str, Tensor]:
        """Both ``[1, tokens]`` or ``[sequences, longest]``. Collective over the group of tensor parallelism: a rank
        that fails, now or before, takes part with NaN, else the others' next collective would meet verl's own."""
        from megatron.core import parallel_state

        group = parallel_state.get_tensor_model_parallel_group()
        shape, flat = logits.shape[:2], logits.detach().flatten(0, 1)
        rows, temperature = torch.arange(len(flat), device=flat.device), temperature.flatten().float()
        temperature = temperature.clamp(min=_COLDEST)
        with torch.no_grad():
            own = self._guard(moments)(flat, rows, temperature)
            if own is None:
                own = torch.full((3, len(flat)), torch.nan, device=flat.device)
            peak = own[0].clone()
            dist.all_reduce(peak, dist.ReduceOp.MAX, group)
            sums = rebased(own, peak, temperature)
            dist.all_reduce(sums, dist.ReduceOp.SUM, group)
            entropy, top1 = entropy_and_top1(sums)
        return {_ENTROPY: entropy.view(shape), _TOP1: top1.view(shape)}


def response_rows(data: Any) -> Tensor:
    """``[tokens]`` int64: rows of the packed sequences whose distribution a token of the response mask was drawn from,
    aligned as verl's ``ppo_loss`` does, whose ``no_padding_2_padding`` waits for the device several times a sequence.

    Args:
        data: a micro-batch, with ``input_ids`` (nested), ``prompts``, ``responses`` and ``response_mask``.
    """
    responses, mask = data["responses"], data["response_mask"]
    if responses.is_nested:
        lengths = responses.offsets().diff()
    else:
        lengths = data["attention_mask"][:, data["prompts"].shape[1] :].sum(1)
    # A response is the end of its sequence, and was drawn from the rows one before its own.
    first = data["input_ids"].offsets()[1:] - lengths - 1
    if mask.is_nested:
        begins, values = mask.offsets()[:-1], mask.values()
        shift = (first - begins).repeat_interleave(mask.offsets().diff(), output_size=len(values))
        return (shift + torch.arange(len(values), device=values.device))[values.bool()]
    return (first[:, None] + torch.arange(mask.shape[1], device=mask.device))[mask.bool()]


def _is_rollout(data: Any) -> bool:
    """And no batch of the probe set's."""
    return "response_mask" in data


def _no_logits() -> InputError:
    return InputError(
        "actor_rollout_ref.model.use_fused_kernels",
        "false for the monitor of tokens",
        "true, so that there are no logits to look at",
        "set it to false, or rejuvenation.monitors.tokens=false",
    )
