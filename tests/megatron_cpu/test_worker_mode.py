# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Rejuvenated weights in verl's Megatron engine: the bits of disk mode in any topology, before and after a step."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from checkpoints import save_model, set_weights, weights
from rank_server import RanksFailed, Server
from safetensors.torch import load_file, save_file

from megatron_cpu import models
from megatron_cpu.topology import Topology
from rejuv_plugin.checkpoint import Plan, apply, plan_fusion, plan_reset
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.integrations.verl.worker_mode.start import Start, fingerprint
from rejuv_plugin.neurons.modules import modules_of
from rejuv_plugin.neurons.reset_set import Chosen, ResetSet


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``<model>-<dtype>/base`` and ``/sft``, each in several files."""
    root = tmp_path_factory.mktemp("pairs")
    for name in ("qwen2", "qwen2_tied", "qwen3", "qwen3_moe"):
        for dtype in ("bfloat16", "float32"):
            for seed, side in enumerate(("base", "sft")):
                models.save(root / f"{name}-{dtype}" / side, name, seed=seed, dtype=getattr(torch, dtype))
    return root


def plan_of(pair: Path) -> Plan:
    """Fusion, and a reset of every third neuron of each module, with a share of the base between none and all."""
    plan = plan_fusion(str(pair / "base"), str(pair / "sft"), FusionConfig(alpha=0.4))
    modules = modules_of(plan.sft.config, plan.sft.shapes, "--sft")
    chosen = {m.name: Chosen(m.kind, m.count, tuple(range(0, m.count, 3))) for m in modules}
    return plan_reset(plan, ResetSet(plan.sft.config["model_type"], chosen), 0.8, "--reset-set")


def _load_and_step(pair: Path, topology: Topology, offload: bool) -> dict:
    """On a rank: what the engine holds after loading, and after a step of the optimizer with a learning rate of 0."""
    import torch.distributed as dist

    from megatron_cpu import engines
    from rejuv_plugin.integrations.verl.worker_mode.engines import load_rejuvenated

    engine = engines.build(pair / "sft", topology, offload=offload, lr=0.0, weight_decay=0.0)
    loaded = load_rejuvenated(engine, plan_of(pair), f"on rank {dist.get_rank()}")
    engine.initialize()
    found = {"read": set(loaded.drift), "apart": loaded.apart, "loaded": engines.exported(engine)}
    with engine.train_mode():
        engine.optimizer_zero_grad()
        engine.optimizer_step()
    return found | {"stepped": engines.exported(engine)}


def different(found: dict[str, torch.Tensor], directory: Path) -> list[str]:
    """Names of tensors that are not the checkpoint's, in the engine's dtype."""
    expected = weights(directory)
    assert found.keys() == expected.keys()
    return [name for name, tensor in found.items() if not torch.equal(tensor, expected[name].to(torch.bfloat16))]


@pytest.mark.parametrize(
    ("model", "topology", "offload"),
    [
        ("qwen2-bfloat16", Topology(), False),
        ("qwen2-float32", Topology(tp=2), False),
        ("qwen2-bfloat16", Topology(pp=2), True),
        ("qwen2-bfloat16", Topology(tp=2, pp=2), False),
        ("qwen2-float32", Topology(pp=2, vpp=2), False),
        ("qwen2-bfloat16", Topology(dp=2), True),
        ("qwen2_tied-bfloat16", Topology(pp=2), False),
        ("qwen2_tied-float32", Topology(tp=2, vanilla=True), False),
        ("qwen3-bfloat16", Topology(tp=2), True),
        ("qwen3-bfloat16", Topology(pp=2, vanilla=True), False),
        ("qwen3_moe-bfloat16", Topology(ep=2), False),
        ("qwen3_moe-float32", Topology(tp=2, ep=2, etp=1), True),
        ("qwen3_moe-bfloat16", Topology(tp=2, ep=2, etp=2), False),
        ("qwen3_moe-bfloat16", Topology(pp=2, ep=2, vanilla=True), False),
    ],
    ids=str,
)
def test_the_engine_holds_what_disk_mode_writes(
    server: Server, pairs: Path, tmp_path: Path, model: str, topology: Topology, offload: bool
) -> None:
    plan = plan_of(pairs / model)
    apply(plan, tmp_path / "output")
    found = server.run(_load_and_step, topology.world, pairs / model, topology, offload)
    for rank in found:
        assert rank["apart"]  # stacks of experts, which these files do not have
        assert different(rank["loaded"], tmp_path / "output") == []
        # The optimizer copies its own float32 weights back: they have to be the rejuvenated ones, too.
        assert different(rank["stepped"], tmp_path / "output") == []
    assert set.union(*(rank["read"] for rank in found)) == {operation.name for operation in plan.fused}


def _taken(pair: Path, directory: Path, topology: Topology, rejuvenated: bool) -> tuple[dict, set[str]]:
    """On a rank: what bridges make of the experts that are its own, read from ``directory``, and what they read."""
    from contextlib import ExitStack

    from megatron.bridge.models.conversion.model_bridge import MegatronModelBridge
    from megatron.bridge.models.gpt_oss import gpt_oss_bridge as gpt_oss
    from megatron.bridge.models.hf_pretrained.state import SafeTensorsStateSource, StateDict
    from megatron.bridge.models.qwen_vl import qwen3_vl_bridge as qwen3_vl
    from megatron.core import parallel_state as mpu
    from verl.utils.megatron_utils import unwrap_model

    from megatron_cpu import engines
    from rejuv_plugin.loading import Values, serving

    engine = engines.build(pair / "sft", topology)
    engine.initialize()
    experts = unwrap_model(engine.module[0]).decoder.layers[0].mlp.experts
    gated = {gpt_oss.GPTOSSBridge(): gpt_oss.GPTOSSMLPGateUpProjMapping}
    gated[qwen3_vl.Qwen3VLMoEBridge()] = qwen3_vl.ExpertMLPGateUpProjMapping
    down = {gpt_oss.GPTOSSBridge(): gpt_oss.GPTOSSMLPDownProjMapping}
    down[qwen3_vl.Qwen3VLMoEBridge()] = qwen3_vl.ExpertMLPDownProjMapping
    begin = mpu.get_expert_model_parallel_rank() * experts.num_local_experts
    found, values = {}, Values(stacked_plan(directory.parent), apart=True)
    with ExitStack() as stack:
        if rejuvenated:
            stack.enter_context(serving(values, directory))
        state = StateDict(SafeTensorsStateSource(directory))
        for name, mappings in (("gate_up_proj", gated), ("down_proj", down)):
            linear = "linear_fc1" if name == "gate_up_proj" else "linear_fc2"
            hf_name, layer = f"model.layers.0.mlp.experts.{name}", f"decoder.layers.0.mlp.experts.{linear}.weight"
            for bridge, mapping in mappings.items():
                assert isinstance(bridge, MegatronModelBridge)
                for i in range(begin, begin + experts.num_local_experts):
                    # As the bridge's own loop over parameters does.
                    weights = bridge.maybe_modify_loaded_hf_weight(hf_name, state)
                    made = mapping(f"{layer}{i}", hf_name).hf_to_megatron(weights, getattr(experts, linear))
                    found[type(bridge).__name__, name, i] = made.clone()
    return found, set(values.drift)


def stacked_plan(root: Path) -> Plan:
    return plan_fusion(str(root / "base"), str(root / "sft"), FusionConfig(alpha=0.4))


@pytest.mark.parametrize("topology", [Topology(ep=2), Topology(tp=2, ep=2, etp=2)], ids=str)
def test_bridges_take_from_stacks_of_experts_their_own(
    server: Server, pairs: Path, tmp_path: Path, topology: Topology
) -> None:
    """In the orders of Qwen3-VL, which reads a stack for each expert, and gpt-oss, which keeps and turns it."""
    for seed, side in enumerate(("base", "sft")):
        save_model(tmp_path / side, seed)
        generator = torch.Generator().manual_seed(seed)
        shapes = {"gate_up_proj": (4, 64, 96), "down_proj": (4, 48, 64)}
        stacks = {
            f"model.layers.0.mlp.experts.{name}": torch.randn(shape, generator=generator).bfloat16()
            for name, shape in shapes.items()
        }
        set_weights(tmp_path / side, weights(tmp_path / side) | stacks)
    apply(stacked_plan(tmp_path), tmp_path / "output")
    pair = pairs / "qwen3_moe-bfloat16"
    served = server.run(_taken, topology.world, pair, tmp_path / "sft", topology, True)
    written = server.run(_taken, topology.world, pair, tmp_path / "output", topology, False)
    for (found, read), (expected, _) in zip(served, written, strict=True):
        assert found.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in found.items())
        assert read == {f"model.layers.0.mlp.experts.{name}[{i}]" for _, name, i in found}
    assert len(set.union(*(read for _, read in served))) == 8


def _most_in_memory(pair: Path, topology: Topology) -> tuple[int, int, bool]:
    """On a rank: the most rejuvenated tensors that were there at once while the engine loaded them, of how many; and
    whether its bridge is as it was."""
    import weakref

    from megatron_cpu import engines
    from rejuv_plugin.integrations.verl.worker_mode.engines import load_rejuvenated
    from rejuv_plugin.loading import Values

    made, most, tensor = [], [], Values.tensor

    def counted(self: Values, name: str, index: int | None = None) -> torch.Tensor:
        found = tensor(self, name, index)
        made.append(weakref.ref(found))
        most.append(sum(one() is not None for one in made))
        return found

    Values.tensor = counted
    engine = engines.build(pair / "sft", topology)
    load_rejuvenated(engine, plan_of(pair), "on a rank")
    engine.initialize()
    return max(most), len(made), "load_weights" not in vars(engine.bridge)


@pytest.mark.parametrize("vanilla", [True, False])
def test_a_bridge_has_the_tensors_of_few_parameters_at_once(server: Server, pairs: Path, vanilla: bool) -> None:
    ((most, all_of_them, restored),) = server.run(
        _most_in_memory, 1, pairs / "qwen3_moe-bfloat16", Topology(vanilla=vanilla)
    )
    # Queries, keys and values, and the parameter before.
    assert most <= 6
    assert all_of_them > 60
    assert restored


def _report(pair: Path, topology: Topology, start: Start) -> dict:
    """On a rank: what its worker tells the trainer. The engine gets the SFT checkpoint from ``pair``."""
    from megatron_cpu import engines
    from rejuv_plugin.integrations.verl.worker_mode.worker import Beginning

    beginning = Beginning(start)
    engine = engines.build(pair / "sft", topology)
    beginning.watch(engine, "actor")
    engine.initialize()
    return beginning.report()


@pytest.mark.parametrize("topology", [Topology(tp=2, pp=2), Topology(tp=2, vanilla=True)], ids=str)
def test_each_tensor_is_reported_once(server: Server, pairs: Path, topology: Topology) -> None:
    """Of a fusion of one layer alone, too: most ranks then have nothing to read."""
    pair = pairs / "qwen3-bfloat16"
    for only in ("*", "model.layers.0.*"):
        fusion = FusionConfig(alpha=0.4, only_tensors=only)
        plan = plan_fusion(str(pair / "base"), str(pair / "sft"), fusion)
        start = Start(str(pair / "base"), str(pair / "sft"), fusion, fingerprint(plan), "sft", False, 1.0, None, None)
        reports = server.run(_report, topology.world, pair, topology, start)
        reported = [name for report in reports for name in report["drift"]]
        assert sorted(reported) == sorted(operation.name for operation in plan.fused)


@pytest.mark.parametrize("topology", [Topology(), Topology(vanilla=True)], ids=str)
def test_a_stored_unembedding_need_not_be_read_where_the_engine_ties_it(
    server: Server, pairs: Path, tmp_path: Path, topology: Topology
) -> None:
    """As of Gemma, whose config.json does not say that it is tied. Here only the engine's copy says so."""
    pair = Path(shutil.copytree(pairs / "qwen2_tied-bfloat16", tmp_path / "pair"))
    for side in ("base", "sft"):
        tensors = weights(pair / side)
        for file in (pair / side).glob("*.safetensors*"):
            file.unlink()
        set_weights(pair / side, tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    shutil.copytree(pair / "sft", tmp_path / "engines" / "sft")
    for side in ("base", "sft"):
        config = json.loads((pair / side / "config.json").read_text())
        del config["tie_word_embeddings"]
        (pair / side / "config.json").write_text(json.dumps(config))
    fusion = FusionConfig(alpha=0.4)
    plan = plan_fusion(str(pair / "base"), str(pair / "sft"), fusion)
    start = Start(str(pair / "base"), str(pair / "sft"), fusion, fingerprint(plan), "sft", False, 1.0, None, None)
    (report,) = server.run(_report, 1, tmp_path / "engines", topology, start)
    assert report["unread"] == ["lm_head.weight"]


def _actor_and_reference(pair: Path, topology: Topology, rejuvenated: bool) -> tuple[dict, dict]:
    """On a rank: what both hold, if the actor is rejuvenated and the reference perhaps."""
    import torch.distributed as dist

    from megatron_cpu import engines
    from rejuv_plugin.integrations.verl.worker_mode.engines import load_rejuvenated

    plan = plan_of(pair)
    actor = engines.build(pair / "sft", topology)
    reference = engines.build(pair / "sft", topology, forward_only=True)
    load_rejuvenated(actor, plan, f"on rank {dist.get_rank()}")
    if rejuvenated:
        load_rejuvenated(reference, plan, f"on rank {dist.get_rank()}")
    # verl's order.
    reference.initialize()
    actor.initialize()
    return engines.exported(actor), engines.exported(reference)


@pytest.mark.parametrize("rejuvenated", [True, False])
def test_the_reference_is_either(server: Server, pairs: Path, tmp_path: Path, rejuvenated: bool) -> None:
    pair = pairs / "qwen2-bfloat16"
    apply(plan_of(pair), tmp_path / "output")
    topology = Topology(tp=2)
    for actor, reference in server.run(_actor_and_reference, topology.world, pair, topology, rejuvenated):
        assert different(actor, tmp_path / "output") == []
        assert different(reference, tmp_path / "output" if rejuvenated else pair / "sft") == []


def _critic(pair: Path, topology: Topology) -> dict[str, torch.Tensor]:
    """On a rank: what a critic holds that is started from the rejuvenated checkpoint."""
    import torch.distributed as dist

    from megatron_cpu import engines
    from rejuv_plugin.integrations.verl.worker_mode.engines import load_rejuvenated

    engine = engines.build(pair / "sft", topology, model_type="value_model")
    load_rejuvenated(engine, plan_of(pair), f"on rank {dist.get_rank()}")
    engine.initialize()
    return engines.exported(engine)


def test_a_critic_has_the_rejuvenated_trunk(server: Server, pairs: Path, tmp_path: Path) -> None:
    pair = pairs / "qwen2-bfloat16"
    apply(plan_of(pair), tmp_path / "output")
    topology = Topology(tp=2)
    for found in server.run(_critic, topology.world, pair, topology):
        # Its head has one output, and a value of its own.
        assert different(found, tmp_path / "output") == ["lm_head.weight"]


def _load(pair: Path, topology: Topology, gone: str) -> None:
    """On a rank: load, after the second rank has lost a file of its own copy."""
    import torch.distributed as dist

    from megatron_cpu import engines
    from rejuv_plugin.integrations.verl.worker_mode.engines import load_rejuvenated

    own = pair.with_name(f"{pair.name}-{dist.get_rank()}")
    shutil.copytree(pair, own)
    plan = plan_of(own)
    if gone and dist.get_rank() == 1:
        (own / gone).unlink()
    engine = engines.build(own / "sft", topology)
    load_rejuvenated(engine, plan, f"on rank {dist.get_rank()}")
    engine.initialize()


@pytest.mark.parametrize("topology", [Topology(pp=2), Topology(tp=2), Topology(dp=2)], ids=str)
def test_all_ranks_end_when_one_lacks_a_file(server: Server, pairs: Path, tmp_path: Path, topology: Topology) -> None:
    pair = Path(shutil.copytree(pairs / "qwen2-bfloat16", tmp_path / "pair"))
    last = max(file.name for file in (pair / "base").glob("*.safetensors"))
    with pytest.raises(RanksFailed) as failed:
        server.run(_load, topology.world, pair, topology, f"base/{last}")
    assert set(failed.value.errors) == {0, 1}
    assert "on rank 1" in failed.value.errors[1]
    assert last in failed.value.errors[1]


@pytest.mark.parametrize("topology", [Topology(pp=2), Topology(tp=2)], ids=str)
def test_a_nan_is_told_by_tensor_and_rank(server: Server, pairs: Path, tmp_path: Path, topology: Topology) -> None:
    pair = Path(shutil.copytree(pairs / "qwen2-bfloat16", tmp_path / "pair"))
    name = "model.layers.3.mlp.down_proj.weight"
    for file in (pair / "base").glob("*.safetensors"):
        tensors = load_file(file)
        if name in tensors:
            tensors[name][3, 3] = torch.nan
            save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(RanksFailed) as failed:
        server.run(_load, topology.world, pair, topology, "")
    assert set(failed.value.errors) == {0, 1}
    assert f"{name}: expected finite weights" in str(failed.value)
    assert "on rank 1" in str(failed.value)
