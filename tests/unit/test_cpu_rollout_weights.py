# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The CPU rollout's weights: from a disk, by updates while requests run, and LoRA adapters."""

import asyncio

import pytest
import torch
from cpu_server import HF_CONFIG, Served, ask, until_running, weights_of
from transformers import Qwen2Config, Qwen2ForCausalLM

from rejuv_plugin.errors import InputError
from rejuv_plugin.integrations.verl.cpu.rollout.weights import build_model


def test_update_waits_for_running_requests_and_changes_the_next():
    async def run():
        async with Served(max_model_len=128) as server:
            before = await ask(server, [5, 6, 7], max_tokens=60, temperature=0)
            running = asyncio.create_task(ask(server, [5, 6, 7], max_tokens=60, temperature=0))
            await until_running(server)
            new = weights_of(1)
            names = list(new)
            parts = [{name: new[name] for name in names[start::3]} for start in range(3)]
            await server.load_weights(parts[0], last=False)
            assert running.done()  # an update begins when nothing runs
            during = asyncio.create_task(ask(server, [5, 6, 7], max_tokens=60, temperature=0))
            await server.load_weights(parts[1], first=False, last=False)
            await asyncio.sleep(0.05)
            assert not during.done()  # nothing is sampled from half of an update
            await server.load_weights(parts[2], first=False, global_steps=1)
            old, after = await running, await during
            assert (old.token_ids, old.extra_fields) == (before.token_ids, {"global_steps": 0})
            assert after.extra_fields == {"global_steps": 1}
        async with Served(seed=1, max_model_len=128) as fresh:
            assert (await ask(fresh, [5, 6, 7], max_tokens=60, temperature=0)).token_ids == after.token_ids
        assert after.token_ids != before.token_ids

    asyncio.run(run())


def test_incomplete_or_foreign_weights_are_refused_until_a_good_update():
    async def run():
        async with Served(seed=None) as server:
            with pytest.raises(RuntimeError, match="no weights were received"):
                await ask(server, [5])
            good = weights_of(0)
            missing = {name: t for name, t in good.items() if name != "model.norm.weight"}
            with pytest.raises(InputError, match=r"without model\.norm\.weight"):
                await server.load_weights(missing, global_steps=1)
            with pytest.raises(RuntimeError, match="did not complete"):
                await ask(server, [5])
            with pytest.raises(InputError, match=r"unexpected model\.extra"):
                await server.load_weights(good | {"model.extra": torch.zeros(1)}, global_steps=1)
            with pytest.raises(InputError, match=r"expected \(32,\), got \(31,\)"):
                await server.load_weights(good | {"model.norm.weight": torch.zeros(31)}, global_steps=1)
            await server.load_weights(good | {"lm_head.weight": good["model.embed_tokens.weight"]}, global_steps=1)
            assert len((await ask(server, [5])).token_ids) == 12
            await server.load_weights({name: torch.full_like(t, torch.nan) for name, t in good.items()})
            with pytest.raises(FloatingPointError):
                await ask(server, [5])
            await server.load_weights(good, global_steps=2)
            assert len((await ask(server, [5])).token_ids) == 12  # the engine survived

    asyncio.run(run())


def test_lora_adapter_on_the_server_is_the_actors_model():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=8, use_rslora=True, target_modules="all-linear", init_lora_weights=False
    )
    actor = peft.get_peft_model(Qwen2ForCausalLM(HF_CONFIG), config).eval()
    with torch.no_grad():
        for name, parameter in actor.named_parameters():
            parameter.mul_(0.3 if "lora_" in name else 1)  # as drawn, it would dwarf the base
    peft_config = actor.peft_config["default"].to_dict()
    # As verl names them: the wrapped base model without its adapter, ``.base_layer`` on every projection.
    base = {n: t for n, t in actor.base_model.model.state_dict().items() if "lora_" not in n and "lm_head" not in n}

    async def run():
        async with Served(seed=None) as server:
            with pytest.raises(InputError, match="full weights first"):
                await server.load_weights(peft.get_peft_model_state_dict(actor), peft_config=peft_config)
            await server.load_weights(base, global_steps=0)
            for step in (1, 2):  # the second replaces the first
                adapter = peft.get_peft_model_state_dict(actor)
                await server.load_weights(adapter, peft_config=peft_config, global_steps=step)
                output = await ask(server, [5, 6, 7])
                ids = torch.tensor([[5, 6, 7, *output.token_ids]])
                with torch.no_grad():
                    wanted = actor(ids).logits[0, 2:-1, :60].log_softmax(-1)
                    wanted = wanted.gather(1, ids[0, 3:].unsqueeze(1)).squeeze(1)
                    for name, parameter in actor.named_parameters():
                        parameter.mul_(1.5 if "lora_" in name else 1)
                torch.testing.assert_close(torch.tensor(output.log_probs), wanted, atol=1e-5, rtol=0)
                assert output.extra_fields == {"global_steps": step}
            adapter.popitem()
            with pytest.raises(InputError, match="without base_model"):
                await server.load_weights(adapter, peft_config=peft_config)

    asyncio.run(run())


def test_checkpoint_is_loaded_from_disk_only_when_asked(tmp_path):
    torch.manual_seed(0)
    saved = Qwen2ForCausalLM(HF_CONFIG)
    saved.save_pretrained(tmp_path)
    loaded = build_model(HF_CONFIG, torch.bfloat16, str(tmp_path))
    assert loaded.dtype == torch.bfloat16
    assert loaded.config._attn_implementation == "sdpa"
    assert torch.equal(loaded.model.norm.weight, saved.model.norm.weight.bfloat16())
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(loaded.state_dict()[name], saved.state_dict()[name].bfloat16())


def test_models_with_other_caches_are_refused():
    config = Qwen2Config(**HF_CONFIG.to_dict())
    config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(InputError, match="linear_attention"):
        build_model(config, torch.float32, None)
