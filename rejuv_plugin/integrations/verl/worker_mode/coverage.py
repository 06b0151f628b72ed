# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the ranks together have read all that their models are made of.

A loader that reads in a way that `loading.serving` does not see gives the SFT checkpoint's weights, and nothing fails:
so what was read is compared with what each role's model needs.
"""

from collections.abc import Collection, Sequence

from ....checkpoint import Plan
from ....loading import needed
from ....probe.ranks import Ranks


class NotRead(RuntimeError):
    """A role's model was built without reading rejuvenated tensors that it is made of."""


def shared_out(ranks: Ranks, names: Sequence[str], mine: Collection[str]) -> tuple[list[str], list[str]]:
    """Collective. Who reports which tensor, and what nobody has read.

    Args:
        ranks: all of them.
        names: all names, in an order that is the same on all ranks.
        mine: those that this rank has read.

    Returns:
        Those of ``mine`` that no lower rank has, so that the ranks together have each once; and, the same on all ranks,
        those of ``names`` that no rank has.
    """
    has = bytes(name in mine for name in names)
    of_all = ranks.gather(has)
    owned = [n for i, n in enumerate(names) if has[i] and not any(other[i] for other in of_all[: ranks.rank])]
    return owned, [n for i, n in enumerate(names) if not any(other[i] for other in of_all)]


def check(plan: Plan, role: str, unread: Collection[str], tied: bool = False) -> None:
    """Raise `NotRead` if a model of ``role`` (``actor``, ``ref``, ``critic``) is made of tensors, or experts, in
    ``unread``. It is ``tied`` if its engine makes the unembedding of the embedding: config.json need not say so."""
    missing = [name for name in unread if needed(plan, name, head=role != "critic" and not tied)]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise NotRead(
            f"{missing[0]}{more}: expected to be read through safetensors.safe_open while the model of the {role} was "
            "built, got a loader that reads another way, so it would be the SFT checkpoint. Fix: use "
            "rejuvenation.mode=disk"
        )
