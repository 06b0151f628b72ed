# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Rejuvenated weights in verl's FSDP engines: the bits of disk mode, at any world size, before and after a step."""

import itertools
from dataclasses import replace
from pathlib import Path

import architectures
import pytest
import torch
from checkpoints import weights
from rank_server import RanksFailed, Server
from safetensors.torch import save_file

from rejuv_plugin.checkpoint import apply, plan_fusion, plan_reset
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.integrations.verl.worker_mode import coverage
from rejuv_plugin.neurons.modules import modules_of
from rejuv_plugin.neurons.reset_set import Chosen, ResetSet


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pairs")
    for variant in ("llama-biases", "qwen2-tied", "qwen3-moe"):
        for seed, side in enumerate(("base", "sft")):
            model = architectures.make(variant, seed).to(torch.bfloat16)
            model.save_pretrained(root / variant / side, max_shard_size="40KB")
    return root


FUSION = FusionConfig(alpha=0.4)
ALTERNATIVE = FusionConfig(alpha=0.8, alpha_of="*.layers.1.*:0.5 *.k_proj.*:0.2", towards="zero", noise=0.5)


def plan_of(pair: Path, fusion: FusionConfig = FUSION):
    plan = plan_fusion(str(pair / "base"), str(pair / "sft"), fusion)
    modules = modules_of(plan.sft.config, plan.sft.shapes, "--sft")
    chosen = {m.name: Chosen(m.kind, m.count, tuple(range(0, m.count, 3))) for m in modules}
    return plan_reset(plan, ResetSet(plan.sft.config["model_type"], chosen), 0.8, "--reset-set")


def load_and_step(pair: Path, strategy: str, rejuvenated: bool, options: dict, fusion: FusionConfig = FUSION) -> dict:
    """On a rank: what the engine holds after loading, and after a step of the optimizer with a learning rate of 0."""
    import torch.distributed as dist

    from fsdp_cpu import engines
    from rejuv_plugin.integrations.verl.worker_mode.engines import load_rejuvenated

    engine = engines.build(pair / "sft", strategy, **options)
    loaded = load_rejuvenated(engine, plan_of(pair, fusion), f"on rank {dist.get_rank()}") if rejuvenated else None
    engine.initialize()
    found = {"loaded": engines.exported(engine), "read": len(loaded.drift) if loaded else 0}
    if not options.get("forward_only"):
        with engine.train_mode():
            for parameter in engine.module.parameters():
                parameter.grad = torch.ones_like(parameter)
            engine.optimizer_step()
        found["stepped"] = engines.exported(engine)
    return found if dist.get_rank() == 0 else {"read": found["read"]}


def assert_loaded(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    """``found`` has another name for a tied head, and the value model none."""
    assert set(found) - set(expected) <= {"lm_head.weight"}
    assert set(expected) <= set(found)
    assert [name for name in expected if not torch.equal(found[name], expected[name].to(dtype))] == []


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
@pytest.mark.parametrize(
    ("variant", "world", "options"),
    [
        ("llama-biases", 1, {}),
        ("llama-biases", 2, {"param_offload": True, "optimizer_offload": True}),
        ("llama-biases", 4, {"fsdp_size": 2}),
        ("qwen2-tied", 2, {}),
        ("qwen3-moe", 2, {}),
        ("qwen3-moe", 4, {}),
    ],
    ids=str,
)
def test_engines_hold_what_disk_mode_writes(
    server: Server, pairs: Path, tmp_path: Path, strategy: str, variant: str, world: int, options: dict
) -> None:
    apply(plan_of(pairs / variant), tmp_path / "output")
    found = server.run(load_and_step, world, pairs / variant, strategy, True, options)
    expected = weights(tmp_path / "output")
    assert_loaded(found[0]["loaded"], expected, torch.float32)
    # Adam's first step moves by the learning rate, whatever the gradient: nothing else hides in copies of the weights.
    assert_loaded(found[0]["stepped"], expected, torch.float32)
    assert found[0]["read"] == len(expected)
    if variant != "qwen2-tied":
        # Ranks whose module is an empty shell read nothing.
        shards = options.get("fsdp_size", world)
        assert [bool(rank["read"]) for rank in found] == [rank % shards == 0 for rank in range(world)]


def test_alphas_of_tensors_and_noise_have_the_bits_of_disk_mode(server: Server, pairs: Path, tmp_path: Path) -> None:
    pair = pairs / "qwen2-tied"
    apply(plan_of(pair, ALTERNATIVE), tmp_path / "output")
    apply(plan_of(pair), tmp_path / "plain")
    found = server.run(load_and_step, 2, pair, "fsdp2", True, {}, ALTERNATIVE)[0]["loaded"]
    expected, plain = weights(tmp_path / "output"), weights(tmp_path / "plain")
    assert_loaded(found, expected, torch.float32)
    assert not any(torch.equal(expected[name], plain[name]) for name in expected)


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
def test_the_reference_is_either(server: Server, pairs: Path, tmp_path: Path, strategy: str) -> None:
    """In bfloat16, as verl holds it."""
    pair = pairs / "llama-biases"
    apply(plan_of(pair), tmp_path / "output")
    for rejuvenated, expected in ((True, tmp_path / "output"), (False, pair / "sft")):
        found = server.run(load_and_step, 2, pair, strategy, rejuvenated, {"forward_only": True})
        assert_loaded(found[0]["loaded"], weights(expected), torch.bfloat16)


def test_a_critic_has_the_rejuvenated_trunk(server: Server, pairs: Path, tmp_path: Path) -> None:
    pair = pairs / "llama-biases"
    apply(plan_of(pair), tmp_path / "output")
    found = server.run(load_and_step, 2, pair, "fsdp2", True, {"model_type": "value_model"})[0]["loaded"]
    expected = weights(tmp_path / "output")
    del expected["lm_head.weight"]
    assert {name for name in found if not name.startswith("score")} == set(expected)
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in expected.items())


def test_a_rank_that_meets_a_nan_names_tensor_and_rank(server: Server, pairs: Path, tmp_path: Path) -> None:
    pair = tmp_path / "pair"
    for seed, side in enumerate(("base", "sft")):
        architectures.make("llama-biases", seed).save_pretrained(pair / side)
    broken = weights(pair / "base")
    broken["model.layers.1.mlp.up_proj.weight"][3, 3] = torch.nan
    save_file(broken, pair / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RanksFailed, match=r"model\.layers\.1\.mlp\.up_proj\.weight: expected finite .*\(on rank 0\)"):
        server.run(load_and_step, 2, pair, "fsdp2", True, {})


def begin(pair: Path, lacking: int, watched: bool) -> str:
    """On a rank: what it raises when one of them has other weights than the trainer saw; or how often neurons were
    looked for by three roles, and what they report."""
    import torch.distributed as dist

    from fsdp_cpu import engines
    from rejuv_plugin.integrations.verl.worker_mode import beginning
    from rejuv_plugin.integrations.verl.worker_mode.start import Start, fingerprint

    plan = plan_of(pair)
    seen = fingerprint(plan) if dist.get_rank() != lacking else "another"
    start = Start(
        str(pair / "base"), str(pair / "sft"), plan.fusion, seen, "rejuvenated", True, 0.8, plan.reset.chosen, None
    )
    try:
        workers = {role: beginning.Beginning(start) for role in ("critic", "ref", "actor")}
        for role, worker in workers.items():
            engine = engines.build(
                pair / "sft", "fsdp2", model_type="value_model" if role == "critic" else "language_model"
            )
            worker.watch(engine, role)
            if watched or role != "actor":
                engine.initialize()
        reports = [worker.report() for worker in workers.values()]
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__} {error}"
    assert {report["digest"] for report in reports} == {plan.reset.chosen.digest}
    assert beginning.prepare(start) is beginning.prepare(start)
    return " ".join(str(len(report["drift"])) for report in reports)


def test_all_ranks_end_with_the_error_of_one(server: Server, pairs: Path) -> None:
    said = server.run(begin, 3, pairs / "llama-biases", 1, True)
    assert len(set(said)) == 1
    assert "expected on every node the checkpoints that the trainer's node has, got others at " in said[0]
    assert "(on rank 1 of 3, " in said[0]


def test_each_role_reports_and_a_model_of_other_weights_is_found_out(server: Server, pairs: Path) -> None:
    pair = pairs / "llama-biases"
    fused = len(plan_of(pair).fused)
    # A critic has no use for the head.
    assert server.run(begin, 2, pair, -1, True) == [f"{fused - 1} {fused} {fused}", "0 0 0"]
    said = server.run(begin, 2, pair, -1, False)
    assert len(set(said)) == 1
    assert said[0].startswith("NotRead ")
    assert f" and {fused - 1} more: expected to be read through" in said[0]
    assert "the model of the actor" in said[0]


def share(names: list[str]) -> tuple[list[str], list[str]]:
    """On a rank: the names that it reports, where all ranks have all but every third and nobody the last."""
    import torch
    import torch.distributed as dist

    from rejuv_plugin.integrations.verl.worker_mode.coverage import shared_out
    from rejuv_plugin.probe.ranks import World

    mine = {name for i, name in enumerate(names[:-1]) if i % 3 != dist.get_rank()}
    return shared_out(World(torch.device("cpu"), "--"), names, mine)


def test_each_tensor_is_reported_by_one_rank(server: Server) -> None:
    names = [str(i) for i in range(10)]
    shared = server.run(share, 3, names)
    assert sorted(itertools.chain(*(owned for owned, _ in shared))) == names[:-1]
    assert shared[2][0] == []
    assert [unread for _, unread in shared] == [["9"]] * 3


def test_an_unembedding_that_is_tied_by_the_architecture_need_not_be_read(pairs: Path) -> None:
    """Gemma's config.json does not say that it is: it always is."""
    plan = plan_of(pairs / "llama-biases")
    config = {name: value for name, value in plan.sft.config.items() if name != "tie_word_embeddings"}
    plan = replace(plan, sft=replace(plan.sft, config=config))
    coverage.check(plan, "actor", ["lm_head.weight"], tied=True)
    with pytest.raises(coverage.NotRead, match=r"^lm_head.weight: expected to be read"):
        coverage.check(plan, "actor", ["lm_head.weight"])
    with pytest.raises(coverage.NotRead, match=r"^model.embed_tokens.weight: expected to be read"):
        coverage.check(plan, "actor", ["model.embed_tokens.weight"], tied=True)


@pytest.mark.parametrize(
    ("role", "name", "config", "needed"),
    [
        ("actor", "model.layers.1.mlp.up_proj.weight", {}, True),
        ("actor", "model.layers.2.mlp.up_proj.weight", {}, False),  # multi-token prediction
        ("actor", "mtp.layers.0.mlp.up_proj.weight", {}, False),
        ("actor", "model.mtp_layers.0.mlp.up_proj.weight", {}, False),
        ("actor", "model.embed_tokens.weight", {}, True),
        ("actor", "lm_head.weight", {}, True),
        ("actor", "lm_head.weight", {"tie_word_embeddings": True}, False),
        ("critic", "lm_head.weight", {}, False),
        ("actor", "model.layers.1.self_attn.rotary_emb.inv_freq", {}, False),
    ],
)
def test_what_a_model_is_made_of(pairs: Path, role: str, name: str, config: dict, needed: bool) -> None:
    plan = plan_of(pairs / "llama-biases")
    plan = replace(plan, sft=replace(plan.sft, config={"num_hidden_layers": 2, "tie_word_embeddings": False} | config))
    if not needed:
        coverage.check(plan, role, [name])
        return
    with pytest.raises(coverage.NotRead, match=f"^{name}: expected to be read"):
        coverage.check(plan, role, [name])
