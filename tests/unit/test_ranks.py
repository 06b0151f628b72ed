# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The helper that starts ranks must not hang, or hide what went wrong."""

import os
import time

import pytest
import ranks
import torch
import torch.distributed as dist


def total() -> float:
    found = torch.tensor([dist.get_rank() + 1.0])
    dist.all_reduce(found)
    return found.item()


def fails_on_1() -> None:
    if dist.get_rank() == 1:
        raise ValueError("one")
    dist.barrier()


def test_results_come_by_rank() -> None:
    assert ranks.run(total, 3) == [6.0] * 3
    assert ranks.run(lambda added: dist.get_rank() + added, 2, 10) == [10, 11]


def test_what_a_rank_raises() -> None:
    def own() -> int:
        if dist.get_rank() == 1:
            raise ValueError("one")
        return 0

    first, second = ranks.outcomes(own, 2)
    assert first == 0
    assert str(second) == "one"
    with pytest.raises(ValueError, match="one"):
        ranks.run(own, 2)


def test_a_rank_that_waits_for_ever() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no result from ranks \[0\]") as caught:
        ranks.run(fails_on_1, 2, seconds=2)
    assert str(caught.value.__cause__) == "one"
    assert time.monotonic() - began < 20


def test_a_rank_that_dies() -> None:
    with pytest.raises(RuntimeError, match="rank 0 ended without a result"):
        ranks.run(lambda: os._exit(3), 1)
