# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Probe-set monitors on verl's Megatron engine: what one whole model says, however it is cut up."""

from pathlib import Path

import probe_reference
import pytest
import torch
from rank_server import Server
from transformers import AutoModelForCausalLM

from megatron_cpu import models
from megatron_cpu.topology import Topology

EXAMPLES = probe_reference.examples(models.VOCABULARY)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, tuple]]:
    found = {}
    for name in ("qwen2", "qwen3_moe"):
        path = models.save(tmp_path_factory.mktemp(name), name, seed=1)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        found[name] = path, probe_reference.reference(model, EXAMPLES)
    return found


RECOMPUTED = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}

BALANCED = {"moe_aux_loss_coeff": 1.0, "moe_router_load_balancing_type": "aux_loss", "moe_z_loss_coeff": 1.0}


def look(path: Path, topology: Topology, transformer: dict) -> tuple[dict, dict]:
    import probe_on_rank

    from megatron_cpu import engines

    # Half precision would hide what is counted twice or not at all.
    engine = engines.build(path, topology, transformer=transformer, dtype="float32")
    engine.initialize()
    return probe_on_rank.measured(engine, EXAMPLES)


def look_past_modules(path: Path, name: str) -> dict[str, str]:
    """On a rank: what each monitor says if the MLPs' down projections are computed without a call of their modules, as
    Transformer Engine's fused MLP does."""
    import probe_on_rank

    from megatron_cpu import engines

    # isort: split
    from verl.utils.megatron_utils import unwrap_model

    engine = engines.build(path, Topology(), dtype="float32")
    engine.initialize()
    for layer in unwrap_model(engine.module[0]).decoder.layers[1:]:
        mlp = layer.mlp if name == "qwen2" else layer.mlp.experts
        down = mlp.linear_fc2

        class Unseen(type(down)):
            def __call__(self, *args: object) -> object:
                return self.forward(*args)

        down.__class__ = Unseen
    return probe_on_rank.outcomes(engine, EXAMPLES, 1)


@pytest.mark.parametrize("name", ["qwen2", "qwen3_moe"])
def test_a_module_that_is_passed_by_is_told_of(server: Server, saved: dict, name: str) -> None:
    (said,) = server.run(look_past_modules, 1, saved[name][0], name)
    assert {monitor for monitor, error in said.items() if error} == {"neurons"}
    assert "rejuvenation.monitors.neurons: expected Unseen to be called for each of" in said["neurons"]
    assert "got 0 calls: something runs the layers without it" in said["neurons"]
    assert "use_transformer_engine_op_fuser" in said["neurons"]


def train(path: Path, topology: Topology, probed: bool) -> dict:
    import probe_on_rank

    from megatron_cpu import engines

    engine = engines.build(path, topology, offload=True)
    engine.initialize()
    return probe_on_rank.trained(engine, EXAMPLES, probed, engines.exported)


@pytest.mark.parametrize(
    ("name", "topology", "transformer"),
    [
        ("qwen2", Topology(), {}),
        ("qwen2", Topology(tp=2), {}),
        ("qwen2", Topology(pp=2), {}),
        ("qwen2", Topology(tp=2, pp=2), RECOMPUTED),
        ("qwen2", Topology(pp=2, vpp=2, packed=False), {}),
        ("qwen2", Topology(tp=2, dp=2, packed=False), {"sequence_parallel": False}),
        ("qwen3_moe", Topology(ep=2), {}),
        ("qwen3_moe", Topology(tp=2, ep=2, etp=1), RECOMPUTED),
        ("qwen3_moe", Topology(ep=2, pp=2), BALANCED),
    ],
    ids=str,
)
def test_what_one_whole_model_says(
    server: Server, saved: dict, name: str, topology: Topology, transformer: dict
) -> None:
    path, expected = saved[name]
    for found in server.run(look, topology.world, path, topology, transformer):
        probe_reference.assert_equal(found, expected, 1e-5)


def test_training_goes_on_as_if_nobody_had_looked(server: Server, saved: dict) -> None:
    path, _ = saved["qwen3_moe"]
    topology = Topology(tp=2, ep=2, etp=1)
    alone, probed = (server.run(train, topology.world, path, topology, probed, seconds=300) for probed in (False, True))
    probe_reference.assert_same_training(alone, probed)


def step(path: Path, topology: Topology, updates: int) -> tuple:
    import probe_on_rank

    from megatron_cpu import engines

    engine = engines.build(path, topology, dtype="float32")
    engine.initialize()
    return probe_on_rank.sharpness(engine, EXAMPLES, updates, engines.exported)


@pytest.mark.parametrize(
    ("name", "topology", "updates"),
    [
        ("qwen2", Topology(tp=2, pp=2), 1),
        ("qwen2", Topology(dp=2), 2),
        ("qwen3_moe", Topology(tp=2, ep=2, etp=1), 1),
    ],
    ids=str,
)
def test_sharpness_is_that_of_one_whole_model(
    server: Server, saved: dict, name: str, topology: Topology, updates: int
) -> None:
    path, _ = saved[name]
    found = server.run(step, topology.world, path, topology, updates)
    probe_reference.assert_critical(found, path, EXAMPLES, rate=1e-2)


def ends_of_a_line(path: Path, topology: Topology) -> tuple[list[dict], list[dict]]:
    """Whole weights in 16 bits: before a step, after it; and at 0 and 1 on the line, and put back."""
    import probe_on_rank

    from megatron_cpu import engines
    from rejuv_plugin.integrations.verl.monitors.line import Line, copies
    from rejuv_plugin.integrations.verl.monitors.weight_shards import renew

    engine = engines.build(path, topology)
    engine.initialize()
    before, were = copies(engine), [engines.exported(engine)]
    probe_on_rank.update(engine, EXAMPLES)
    were.append(engines.exported(engine))
    line, seen = Line(engine, before), []
    for move in (lambda: line.go(0), lambda: line.go(1), lambda: line.go(0.5), line.back):
        with torch.no_grad():
            move()
            renew(engine)
        seen.append(engines.exported(engine))
    return were, seen


def test_a_line_in_16_bits_has_the_ends_that_training_had(server: Server, saved: dict) -> None:
    topology = Topology(dp=2)
    for (before, after), (start, end, middle, back) in server.run(ends_of_a_line, 2, saved["qwen3_moe"][0], topology):
        for name, tensor in after.items():
            assert torch.equal(before[name], start[name])
            assert torch.equal(tensor, end[name])
            assert torch.equal(tensor, back[name])
        moved = [name for name, tensor in after.items() if not torch.equal(before[name], tensor)]
        assert moved
        assert any(not torch.equal(middle[name], after[name]) for name in moved)
