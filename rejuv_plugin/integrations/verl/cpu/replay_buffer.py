# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's replay buffers in laptop mode: short waits, and a batch order that does not depend on timing.

verl orders the trajectories of a batch by arrival, and names prompts by random ids. With another order the same
gradient is summed in another order, so two runs of one command differ in the last bits, and later in more than those.
"""

from types import ModuleType
from typing import Any

import transfer_queue as tq

_POLL_SECONDS = 0.05  # verl's 2 s would be most of the step of a tiny model


class _OrderedByContent:
    """Placed before a verl replay buffer: the sampled batch is ordered by its prompt and response tokens."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"poll_interval": _POLL_SECONDS, **kwargs})

    def _materialize_batch(self, partition_id: str, selected_prompt_uids: list[str], partition_snapshot: Any) -> Any:
        batch = super()._materialize_batch(partition_id, selected_prompt_uids, partition_snapshot)  # type: ignore[misc]
        if batch.keys:
            tokens = tq.kv_batch_get(keys=batch.keys, partition_id=partition_id, select_fields=["prompts", "responses"])
            content = [
                (prompt.tolist(), response.tolist())
                for prompt, response in zip(tokens["prompts"], tokens["responses"], strict=True)
            ]
            batch.reorder(sorted(range(len(content)), key=content.__getitem__))
        return batch


def order_by_content(module: ModuleType) -> None:
    """Replace verl's two replay buffer classes in their module, before the trainer imports them from there."""
    for name in ("ReplayBuffer", "ReplayBufferAsync"):
        original = getattr(module, name)
        setattr(module, name, type(name, (_OrderedByContent, original), {"__module__": module.__name__}))
