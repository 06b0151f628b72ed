# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""FSDP after a forward or backward pass that raised half way: its state as at the end of an iteration, whose gradients
are lost. By torch's private names, as of 2.11 (verl's pin on GPUs) to 2.13; a name that is gone raises AttributeError.
"""

from typing import Any

from torch.distributed.distributed_c10d import Work
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.fsdp._common_utils import HandleTrainingState
from torch.distributed.fsdp._common_utils import TrainingState as FSDP1State
from torch.distributed.fsdp._fully_shard._fsdp_common import TrainingState


def reset_fsdp1(root: Any) -> None:
    """What torch does at the end of a backward pass (``_runtime_utils._post_backward_final_callback``), but for the
    gradients, which are dropped."""
    root._exec_order_data.next_iter()
    for module in FullyShardedDataParallel.fsdp_modules(root):
        module.training_state, module._post_backward_callback_queued = FSDP1State.IDLE, False
    for handle in root._all_handles:
        handle._training_state, handle._post_forward_index = HandleTrainingState.IDLE, None
        handle._ran_pre_backward_hook = handle._needs_pre_backward_unshard = handle._prefetched = False
        flat = handle.flat_param
        flat.grad, flat._post_backward_called = None, False
        # A later backward pass would add to it.
        if hasattr(flat, "_saved_grad_shard"):
            del flat._saved_grad_shard


def reset_fsdp2(root: FSDPModule) -> None:
    """By torch's own function, which 2.11 does not have, or as that does it.

    Raises:
        RuntimeError: ``root`` is not the module whose forward was called.
    """
    if hasattr(root, "reset_iter_state"):
        root.reset_iter_state()
    else:
        _reset(root._get_fsdp_state())
    for module in root.modules():
        if isinstance(module, FSDPModule):
            _drop_gradients(module)


def _reset(state: Any) -> None:
    if state._is_root is None:
        # No forward was ever called.
        return
    if not state._is_root:
        raise RuntimeError("FSDP2 cannot be reset from a module that is not the root")
    stream, comm, shared = state._device_handle.current_stream(), state._comm_ctx, state._state_ctx
    _wait(stream, comm.all_gather_state)
    comm.all_gather_state = None
    # One in 2.11, later several.
    if hasattr(comm, "reduce_scatter_states"):
        for each in comm.reduce_scatter_states:
            _wait(stream, each)
        comm.reduce_scatter_states.clear()
    else:
        _wait(stream, comm.reduce_scatter_state)
        comm.reduce_scatter_state = None
    comm.post_forward_order.clear()
    for each in shared.all_states:
        each._modules_to_run_forward.clear()
        each._training_state = TrainingState.IDLE
        for group in _groups(each):
            _reset_group(group, stream)
    shared.iter_forward_root, shared.post_backward_final_callback_queued = None, False


def _reset_group(group: Any, stream: Any) -> None:
    if (gathered := group._all_gather_result) is not None:
        if gathered.all_gather_event is not None:
            stream.wait_event(gathered.all_gather_event)
        if isinstance(gathered.all_gather_work, Work):
            gathered.all_gather_work.wait()
    if group._post_reduce_event is not None:
        stream.wait_event(group._post_reduce_event)
    _wait(stream, group._all_reduce_state)
    if group._reshard_after_forward_event is not None:
        group._wait_all_gather_streams_on_event(group._reshard_after_forward_event)
    group._all_gather_result = group._post_reduce_event = group._all_reduce_state = None
    group._reshard_after_forward_event = group._partial_reduce_output = None
    group._post_forward_indices.clear()
    group._training_state = TrainingState.IDLE
    group._to_sharded()


def _wait(stream: Any, holder: Any) -> None:
    """For what a state of an open collective, or None, holds an event of."""
    if holder is not None and holder.event is not None:
        stream.wait_event(holder.event)


def _groups(state: Any) -> list[Any]:
    """Of parameters that communicate together: one at most in 2.11, later several."""
    if hasattr(state, "_fsdp_param_groups"):
        return list(state._fsdp_param_groups)
    return [state._fsdp_param_group] if state._fsdp_param_group else []


def _drop_gradients(module: FSDPModule) -> None:
    """Those that a backward pass had not reduced yet: torch keeps them, and the next one would add to them."""
    for group in _groups(module._get_fsdp_state()):
        for parameter in group.fsdp_params:
            parameter.unsharded_accumulated_grad = None
            if hasattr(parameter, "_unsharded_param"):
                parameter._unsharded_param.grad = None
