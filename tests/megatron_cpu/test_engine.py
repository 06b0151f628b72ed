# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The bench itself: verl's engine, as it comes, loads, infers, learns and exports on it."""

from pathlib import Path

import pytest
import torch
from checkpoints import weights
from rank_server import Server

from megatron_cpu import models
from megatron_cpu.topology import Topology


def _work(path: Path, topology: Topology) -> dict:
    from megatron_cpu import engines

    engine = engines.build(path, topology)
    engine.initialize()
    batch = engines.batch(models.VOCABULARY)
    before = engines.exported(engine)
    with engine.eval_mode():
        steps = [engine.infer_batch(batch.copy(), loss_function=engines.LOSS)]
    with engine.train_mode():
        steps += [engine.train_batch(batch.copy(), loss_function=engines.LOSS) for _ in range(2)]
    return {
        "losses": [sum(step["loss"]) for step in steps] if engine.is_mp_src_rank_with_outputs() else None,
        "before": before,
        "after": engines.exported(engine),
    }


@pytest.mark.parametrize(
    ("model", "topology"),
    [
        ("qwen2", Topology()),
        ("qwen2_tied", Topology(tp=2, pp=2)),
        ("qwen3", Topology(pp=2, vpp=2, packed=False)),
        ("qwen3_moe", Topology(tp=2, ep=2, etp=1)),
        ("qwen3_moe", Topology(ep=2, vanilla=True)),
    ],
    ids=str,
)
def test_engine_loads_learns_and_exports(server: Server, tmp_path: Path, model: str, topology: Topology) -> None:
    path = models.save(tmp_path / model, model, seed=1)
    results = server.run(_work, topology.world, path, topology)

    saved = weights(path)
    for result in results:
        assert result["before"].keys() == saved.keys()
        assert all(torch.equal(tensor, saved[name]) for name, tensor in result["before"].items())
        assert all(not torch.equal(tensor, saved[name]) for name, tensor in result["after"].items())
    losses = next(result["losses"] for result in results if result["losses"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[2] < losses[1]
