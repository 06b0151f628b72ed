# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How weights travel to the CPU rollout: in parts, to one server per worker, or over gloo to standalone rollouts."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from rejuv_plugin.errors import InputError

pytest.importorskip("verl")
from rejuv_plugin.integrations.verl.cpu.rollout import (
    ROLLOUT_NAME,
    adapter,
    gloo_checkpoint_engine,
    register_adapter,
    register_replica,
)
from rejuv_plugin.integrations.verl.cpu.rollout.buckets import buckets


def named(*sizes: int) -> list[tuple[str, torch.Tensor]]:
    return [(f"w{i}", torch.arange(size, dtype=torch.float32)) for i, size in enumerate(sizes)]


async def collect(iterator) -> list:
    return [item async for item in iterator]


def test_parts_are_bounded_copies_in_order():
    weights = [*named(3, 3, 100, 1, 2), ("count", torch.tensor([7]))]
    parts = asyncio.run(collect(buckets(iter(weights), 24, torch.bfloat16)))
    assert [list(part) for part in parts] == [["w0", "w1"], ["w2"], ["w3", "w4", "count"]]
    assert parts[0]["w0"].dtype == torch.bfloat16
    assert parts[2]["count"].dtype == torch.int64
    weights[0][1].zero_()
    assert parts[0]["w0"].tolist() == [0, 1, 2]
    view = torch.arange(1000.0)[10:12]
    (part,) = asyncio.run(collect(buckets([("view", view)], 24)))
    assert part["view"].untyped_storage().nbytes() == 8


class Server:
    def __init__(self) -> None:
        self.calls: list[tuple[list[str], dict]] = []
        self.load_weights = SimpleNamespace(remote=self._load_weights)

    async def _load_weights(self, tensors, **kwargs) -> None:
        self.calls.append((list(tensors), kwargs))


def make_adapter(monkeypatch, **overrides) -> tuple[adapter.TransformersServerAdapter, Server]:
    server = Server()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(adapter.ray, "get_actor", {"transformers_cpu_server_1_0": server}.__getitem__)
    config = {
        "tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 1, "data_parallel_size": 1, "dtype": "float32",
        "checkpoint_engine": SimpleNamespace(update_weights_bucket_megabytes=1),
    }  # fmt: skip
    return adapter.TransformersServerAdapter(SimpleNamespace(**config | overrides), SimpleNamespace(), None), server


def test_adapter_sends_to_the_server_of_its_rank(monkeypatch):
    made, server = make_adapter(monkeypatch)
    asyncio.run(made.update_weights(iter(named(200_000, 200_000, 5)), global_steps=4, peft_config=None))
    assert [names for names, _ in server.calls] == [["w0"], ["w1", "w2"], []]
    assert [(c["first"], c["last"], c.get("global_steps")) for _, c in server.calls] == [
        (True, False, None), (False, False, None), (False, True, 4),
    ]  # fmt: skip


def test_adapter_tells_base_from_lora(monkeypatch):
    made, server = make_adapter(monkeypatch)
    asyncio.run(made.update_weights(named(1), global_steps=0, peft_config={"r": 1}, base_sync_done=False))
    asyncio.run(made.update_weights(named(1), global_steps=0, peft_config={"r": 1}, base_sync_done=True))
    assert [kwargs["peft_config"] for _, kwargs in server.calls] == [None, None, {"r": 1}, {"r": 1}]
    with pytest.raises(InputError, match="delta_flush"):
        asyncio.run(made.update_weights([], wire_format="delta_flush"))
    with pytest.raises(InputError, match="data_parallel_size"):
        make_adapter(monkeypatch, data_parallel_size=2)


def test_gloo_engine_brings_every_tensor_to_every_receiver(monkeypatch):
    monkeypatch.setattr(gloo_checkpoint_engine.ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    engine_class = gloo_checkpoint_engine.GlooCheckpointEngine
    actors = [engine_class(64, is_master=rank == 0) for rank in range(2)]
    receivers = [engine_class(64) for _ in range(2)]
    weights = [*named(5, 30, 1), ("b", torch.ones(2, 3, dtype=torch.bfloat16))]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):  # each update has a group of its own
            metadata = [engine.prepare() for engine in actors + receivers]
            for_actors, for_rollout = engine_class.build_topology(2, 2, metadata)
            everyone = [
                (engine, {key: values[i] for key, values in arguments.items()})
                for group, arguments in ((actors, for_actors), (receivers, for_rollout))
                for i, engine in enumerate(group)
            ]
            list(pool.map(lambda pair: pair[0].init_process_group(**pair[1]), everyone))
            sent = [pool.submit(lambda e: asyncio.run(e.send_weights(iter(weights))), engine) for engine in actors]
            got = list(pool.map(lambda e: asyncio.run(collect(e.receive_weights())), receivers))
            for future in sent:
                future.result()
            for received in got:
                assert [name for name, _ in received] == [name for name, _ in weights]
                assert all(torch.equal(a, b) for (_, a), (_, b) in zip(received, weights, strict=True))
            for engine in actors + receivers:
                engine.finalize()


def test_registered_under_verls_names():
    from verl.workers.rollout import base, replica

    register_adapter(base)
    register_replica(replica)
    assert base.get_rollout_class(ROLLOUT_NAME, "async") is adapter.TransformersServerAdapter
    assert replica.get_rollout_replica_class(ROLLOUT_NAME).__name__ == "TransformersReplica"


@pytest.mark.parametrize("refused", [{"is_reward_model": True}, {"is_teacher_model": True}])
def test_roles_that_need_http_or_prompt_log_probs_are_refused(refused):
    from rejuv_plugin.integrations.verl.cpu.rollout.replica import TransformersReplica, server_name

    config = SimpleNamespace(
        tensor_model_parallel_size=1, pipeline_model_parallel_size=1, data_parallel_size=1, max_num_seqs=4
    )
    names = {server_name(TransformersReplica(rank, config, {}, 1, name_suffix="x").replica_rank) for rank in range(2)}
    assert len(names) == 2
    with pytest.raises(InputError, match="vllm or sglang"):
        TransformersReplica(0, config, {}, 1, **refused)


def test_experts_come_by_a_checkpoints_names(tmp_path):
    """As Megatron's bridges send them: one tensor for each expert, where the model has one for all."""
    from safetensors.torch import load_file
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    from rejuv_plugin.integrations.verl.cpu.rollout.weights import ModelWeights, build_model

    sizes = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "head_dim": 4}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 6}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen3MoeConfig(**sizes, **experts, **heads)
    theirs = Qwen3MoeForCausalLM(config)
    theirs.save_pretrained(tmp_path)
    sent = load_file(tmp_path / "model.safetensors")
    assert "model.layers.1.mlp.experts.3.gate_proj.weight" in sent
    ours = ModelWeights(build_model(config, torch.float32, None), loaded=False)
    ours.begin()
    ours.load(sent)
    ours.finish()
    ours.require_ready()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.model.state_dict()[name], tensor), name
    ours.begin()
    ours.load({name: tensor for name, tensor in sent.items() if "layers.1.mlp.experts.3.up_proj" not in name})
    with pytest.raises(InputError, match=r"without model.layers.1.mlp.experts.gate_up_proj"):
        ours.finish()
