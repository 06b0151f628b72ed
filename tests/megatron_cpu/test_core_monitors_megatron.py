# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The monitors of tokens and gradients on verl's Megatron engine, against an unsharded model."""

from pathlib import Path

import pytest
import rollouts
import torch
from rank_server import Server

from megatron_cpu import models
from megatron_cpu.topology import Topology


def steps() -> list:
    return [rollouts.rollouts(seed, models.VOCABULARY) for seed in range(2)]


def look(path: Path, topology: Topology, dtype: str) -> tuple[dict, list[float]]:
    """On a rank."""
    from megatron_cpu import engines

    engine = engines.build(path, topology, lr=0.0, weight_decay=0.0, offload=topology.dp == 2, dtype=dtype)
    return rollouts.measured(engine, steps(), 0.7, calculate_entropy=True)


@pytest.mark.parametrize(
    ("model", "topology", "dtype", "tolerance"),
    [
        ("qwen2", Topology(), "float32", 1e-5),
        ("qwen2_tied", Topology(tp=2, pp=2), "float32", 1e-5),
        ("qwen3", Topology(pp=2, vpp=2, packed=False), "float32", 1e-5),
        ("qwen2", Topology(dp=2, tp=2, vanilla=True), "float32", 1e-5),
        ("qwen3_moe", Topology(ep=2), "float32", 1e-5),
        ("qwen3_moe", Topology(tp=2, ep=2, etp=1), "float32", 1e-5),
        # As verl trains: activations and their gradients have a bfloat16's digits.
        ("qwen3", Topology(tp=2), "bfloat16", 5e-3),
    ],
    ids=str,
)
def test_values_are_those_of_an_unsharded_model(
    server: Server, tmp_path: Path, model: str, topology: Topology, dtype: str, tolerance: float
) -> None:
    path = models.save(tmp_path / model, model, seed=1)
    found = server.run(look, topology.world, path, topology, dtype)
    expected = rollouts.expected(path, steps(), 0.7)
    norms = next(norms for _, norms in found if norms)
    for values, _ in found:
        assert values == found[0][0]
        for key, value in expected.items():
            assert values[key] == pytest.approx(value, rel=tolerance), key
        squares = torch.tensor(norms).double().square()
        assert values["grad_norm"] == pytest.approx(squares.mean().sqrt().item(), rel=1e-5)


def refused_by(settings: tuple[bool, str | None]) -> str:
    """On a rank."""
    from types import SimpleNamespace

    from rejuv_plugin.errors import InputError
    from rejuv_plugin.integrations.verl.monitors.sites_megatron import MegatronSites

    dynamic, fp8 = settings
    engine = SimpleNamespace(
        engine_config=SimpleNamespace(dynamic_context_parallel=dynamic), tf_config=SimpleNamespace(fp8=fp8)
    )
    try:
        MegatronSites(engine)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("settings", [(True, None), (False, "hybrid")])
def test_what_the_probe_set_cannot_go_through_is_told_how_to_turn_all_of_it_off(
    server: Server, settings: tuple[bool, str | None]
) -> None:
    (said,) = server.run(refused_by, 1, settings)
    off = "rejuvenation.monitors.probe, .neurons, .ranks, .attention, .sharpness"
    assert said.endswith(f"Fix: turn off all that look at the probe set: {off}.")


def told_of_optimizer(fsdp: bool, real: bool) -> list[str]:
    """On a rank: what the monitors of gradients and of sharpness say of megatron-core's own distributed optimizer,
    which has no groups of parameters if the model is Megatron-FSDP's; or, not ``real``, of one that lacks them for a
    reason yet unknown."""
    from types import SimpleNamespace

    from megatron_cpu import engines  # noqa: F401  (the stand-ins)

    # isort: split
    from megatron.core.distributed import DistributedDataParallelConfig
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
    from megatron.core.optimizer.optimizer_config import OptimizerConfig

    from rejuv_plugin.errors import InputError
    from rejuv_plugin.integrations.verl.monitors import gradient_shards, weight_shards

    class Unknown(DistributedOptimizer):
        def __init__(self) -> None:
            self.ddp_config = settings

    settings = DistributedDataParallelConfig(use_distributed_optimizer=True, use_megatron_fsdp=fsdp)
    chunk = SimpleNamespace(ddp_config=settings)
    update = torch.optim.AdamW([torch.zeros(2, requires_grad=True)])
    # What it is told of buffers it does not look at.
    there = {name: None for name in ("per_model_buffers", "data_parallel_group", "data_parallel_group_gloo")}
    optimizer = (
        DistributedOptimizer(
            update,
            OptimizerConfig(use_distributed_optimizer=True, bf16=True),
            None,
            None,
            [chunk],
            **there,
            data_parallel_group_idx=0,
            distributed_optimizer_instance_id=0,
        )
        if real
        else Unknown()
    )
    engine, said = SimpleNamespace(optimizer=optimizer, module=[chunk]), []
    for module in (gradient_shards, weight_shards):
        module._mcore_names = lambda engine: {}
        try:
            list(module._of_megatron(engine))
        except InputError as error:
            said.append(str(error))
    return said


@pytest.mark.parametrize(("fsdp", "real", "got"), [(True, True, "true"), (False, False, "an optimizer without its")])
def test_an_optimizer_without_groups_of_parameters_is_refused(server: Server, fsdp: bool, real: bool, got: str) -> None:
    (said,) = server.run(told_of_optimizer, 1, fsdp, real)
    assert len(said) == 2
    for line, switch in zip(said, ("gradients", "sharpness"), strict=True):
        key = "actor_rollout_ref.actor.megatron.use_megatron_fsdp"
        assert line.startswith(f"{key}: expected false for the monitor of {switch}, got {got}")
        assert line.endswith(f"Fix: set it to false, or rejuvenation.monitors.{switch}=false.")


def learn(path: Path, topology: Topology, watched: bool) -> tuple[dict, list[dict]]:
    """On a rank."""
    from megatron_cpu import engines

    return rollouts.five_steps(engines.build(path, topology), watched, engines.exported)


@pytest.mark.parametrize(("model", "topology"), [("qwen2", Topology(tp=2)), ("qwen3_moe", Topology(ep=2))], ids=str)
def test_monitors_do_not_change_a_bit(server: Server, tmp_path: Path, model: str, topology: Topology) -> None:
    path = models.save(tmp_path / model, model, seed=1)
    with_monitors, without = (server.run(learn, 2, path, topology, watched)[0] for watched in (True, False))
    assert with_monitors[0].keys() == without[0].keys()
    assert all(torch.equal(tensor, without[0][name]) for name, tensor in with_monitors[0].items())
    # The policy was seen to change.
    assert len({said["entropy"] for said in with_monitors[1]}) == 5


def learn_while_one_rank_fails(path: Path, topology: Topology) -> tuple[dict, str]:
    """On a rank: weights, and what the monitor of tokens says in the end."""
    import torch.distributed as dist

    from megatron_cpu import engines
    from rejuv_plugin.integrations.verl.monitors import tokens

    def fail(*_: object) -> None:
        raise MemoryError("on one rank")

    if dist.get_rank() == 1:
        tokens.moments = fail
    engine = engines.build(path, topology)
    monitor = tokens.attach(engine)
    weights, _ = rollouts.five_steps(engine, False, engines.exported)
    try:
        monitor.sums()
    except MemoryError as error:
        return weights, str(error)
    return weights, ""


def test_a_rank_that_fails_keeps_step_with_its_group(server: Server, tmp_path: Path) -> None:
    path, topology = models.save(tmp_path / "qwen2", "qwen2", seed=1), Topology(tp=2)
    failed, alone = (
        server.run(learn_while_one_rank_fails, 2, path, topology),
        server.run(learn, 2, path, topology, False),
    )
    assert [said for _, said in failed] == ["", "on one rank"]
    assert all(torch.equal(tensor, alone[0][0][name]) for name, tensor in failed[0][0].items())
