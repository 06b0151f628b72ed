# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The CPU rollout's server, without Ray: concurrency, aborts, weight updates, determinism."""

import asyncio
import random
import time
from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rejuv_plugin.errors import InputError
from rejuv_plugin.integrations.verl.cpu.rollout.decode import BatchDecoder, Request
from rejuv_plugin.integrations.verl.cpu.rollout.engine import DecodeEngine
from rejuv_plugin.integrations.verl.cpu.rollout.sampling import SamplingParams
from rejuv_plugin.integrations.verl.cpu.rollout.settings import EngineSettings, require_one_process

pytest.importorskip("verl")
from rejuv_plugin.integrations.verl.cpu.rollout.server import RolloutServer
from rejuv_plugin.integrations.verl.cpu.rollout.weights import build_model

HF_CONFIG = Qwen2Config(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    initializer_range=0.2,
    tie_word_embeddings=True,
)


class Tokenizer:
    eos_token_id = 2

    def __len__(self) -> int:
        return 60


def settings(**overrides) -> EngineSettings:
    config = {
        "seed": 1, "max_model_len": 48, "prompt_length": 16, "response_length": 12, "max_num_seqs": 32,
        "max_num_batched_tokens": 256, "full_determinism": False, "temperature": 1.0, "top_p": 1.0, "top_k": -1,
        "ignore_eos": False, "logprobs_mode": "processed_logprobs", "dtype": "float32", "load_format": "dummy",
    }  # fmt: skip
    model_config = SimpleNamespace(
        hf_config=HF_CONFIG,
        tokenizer=Tokenizer(),
        generation_config=SimpleNamespace(eos_token_id=[2, 3]),
        local_path="nowhere",
    )
    return EngineSettings.from_verl(SimpleNamespace(**config | overrides), model_config, replica_rank=0)


def weights_of(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    state = Qwen2ForCausalLM(HF_CONFIG).state_dict()
    return {name: tensor.clone() for name, tensor in state.items() if name != "lm_head.weight"}


class Served:
    """A server with weights, closed at the end of the block."""

    def __init__(self, seed: int | None = 0, **overrides) -> None:
        made = settings(**overrides)
        self.server = RolloutServer(made, build_model(HF_CONFIG, made.dtype, None))
        self.seed = seed

    async def __aenter__(self) -> RolloutServer:
        if self.seed is not None:
            await self.server.load_weights(weights_of(self.seed), global_steps=0)
        return self.server

    async def __aexit__(self, *_) -> None:
        await asyncio.to_thread(self.server._engine.close)


async def until_running(server: RolloutServer, count: int = 1) -> None:
    """Return while ``count`` requests are being decoded, with time to spare: every token takes a while from now on."""
    fast = BatchDecoder.step

    def slow_step():
        time.sleep(0.005)
        return fast(server._decoder)

    server._decoder.step = slow_step
    while len(server._decoder.running) < count:
        await asyncio.sleep(0.001)


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(5, 60) for _ in range(rng.randint(2, 14))] for _ in range(count)]


def ask(server: RolloutServer, prompt: list[int], **params):
    return server.generate(prompt, {"logprobs": True, "ignore_eos": True, **params}, "request")


def test_concurrent_requests_come_back_complete():
    async def run():
        async with Served() as server:
            outputs = await asyncio.gather(*[ask(server, p, max_tokens=3 + i % 5) for i, p in enumerate(prompts(40))])
            assert [len(o.token_ids) for o in outputs] == [3 + i % 5 for i in range(40)]
            assert all(len(o.log_probs) == len(o.token_ids) for o in outputs)
            assert {o.stop_reason for o in outputs} == {"completed"}
            assert {o.extra_fields["global_steps"] for o in outputs} == {0}

    asyncio.run(run())


def test_lengths_and_stops():
    async def run():
        async with Served() as server:
            prompt = prompts(1)[0]
            assert len((await ask(server, prompt)).token_ids) == 12  # response_length
            assert len((await ask(server, [5] * 20)).token_ids) == 8  # prompt_length + response_length - 20
            assert len((await ask(server, [5] * 46, max_tokens=30)).token_ids) == 2  # max_model_len - 46
            assert (await ask(server, prompt, logprobs=False)).log_probs is None
            ended = [await ask(server, p, ignore_eos=False, max_tokens=30) for p in prompts(30)]
            stopped = [o.token_ids for o in ended if len(o.token_ids) < 30]
            assert stopped
            assert all(ids[-1] in (2, 3) and not {2, 3} & set(ids[:-1]) for ids in stopped)

    asyncio.run(run())


def test_one_bad_request_fails_alone():
    async def run():
        async with Served() as server:
            bad = [ask(server, []), ask(server, [5] * 48), ask(server, [64]), ask(server, [5], min_p=0.3)]
            bad.append(server.generate([5], {}, "request", image_data=[object()]))
            outputs = await asyncio.gather(*bad, ask(server, [5, 6], max_tokens=4), return_exceptions=True)
            keys = [error.key for error in outputs[:-1]]
            assert keys == ["prompt_ids", "prompt_ids", "prompt_ids", "sampling_params.min_p", "generate"]
            assert len(outputs[-1].token_ids) == 4

    asyncio.run(run())


def run_in_order(order: list[int], pause: float, **overrides) -> list[tuple[list[int], list[float]]]:
    async def run():
        async with Served(**overrides) as server:
            asked = prompts(12) + prompts(4)  # four prompts twice: different samples, whichever comes first
            tasks = {}
            for i in order:
                tasks[i] = asyncio.create_task(ask(server, asked[i]))
                await asyncio.sleep(pause)
            done = {i: await task for i, task in tasks.items()}
            return [(done[i].token_ids, done[i].log_probs) for i in range(len(asked))]

    return asyncio.run(run())


def test_samples_do_not_depend_on_arrival_and_one_at_a_time_is_exact():
    forward, backward = list(range(16)), [*range(11, -1, -1), *range(12, 16)]
    together = run_in_order(forward, 0)
    assert [tokens for tokens, _ in run_in_order(backward, 0.002)] == [tokens for tokens, _ in together]
    assert all(together[i][0] != together[12 + i][0] for i in range(4))
    exact = run_in_order(forward, 0, full_determinism=True)
    assert run_in_order(backward, 0.002, full_determinism=True) == exact
    assert [tokens for tokens, _ in exact] == [tokens for tokens, _ in together]


def test_abort_returns_what_there_is_and_later_requests_wait():
    async def run():
        async with Served(max_num_seqs=4, max_model_len=128) as server:
            tasks = [asyncio.create_task(ask(server, p, max_tokens=110)) for p in prompts(6)]
            await until_running(server, 4)
            assert (await server.abort_all_requests())["aborted_count"] == 6
            outputs = await asyncio.gather(*tasks)
            assert {o.stop_reason for o in outputs} == {"aborted"}
            assert all(0 < len(o.token_ids) == len(o.log_probs) < 110 for o in outputs[:4])
            assert [o.token_ids for o in outputs[4:]] == [[], []]

            waiting = asyncio.create_task(ask(server, [5, 6]))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await server.load_weights(weights_of(1), global_steps=7)
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await server.resume_generation()
            output = await waiting
            assert (output.stop_reason, output.extra_fields) == ("completed", {"global_steps": 7})

            await server.abort_all_requests(reject_request=True)
            rejected = await ask(server, [5, 6])
            assert (rejected.token_ids, rejected.stop_reason) == ([], "aborted")
            await server.resume_generation()
            assert len((await ask(server, [5, 6])).token_ids) == 12

    asyncio.run(run())


def test_resent_prefix_continues_with_matching_log_probs():
    """Partial rollout: an aborted response is sent again as part of the prompt."""

    async def run():
        async with Served(max_model_len=128) as server:
            task = asyncio.create_task(ask(server, [5, 6, 7], max_tokens=100))
            await until_running(server)
            await server.abort_all_requests()
            part = await task
            await server.resume_generation()
            rest = await ask(server, [5, 6, 7, *part.token_ids], max_tokens=100 - len(part.token_ids))
            ids = torch.tensor([[5, 6, 7, *part.token_ids, *rest.token_ids]])
            with torch.no_grad():
                log_probs = server._weights.model(ids).logits[0, 2:-1, :60].log_softmax(-1)
            wanted = log_probs.gather(1, ids[0, 3:].unsqueeze(1)).squeeze(1)
            torch.testing.assert_close(torch.tensor(part.log_probs + rest.log_probs), wanted, atol=1e-5, rtol=0)

    asyncio.run(run())


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


def test_an_error_in_decoding_fails_its_batch_and_not_the_loop():
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(HF_CONFIG).eval()

    class Fragile(BatchDecoder):
        def step(self):
            if len(self.running) == 2:
                raise MemoryError("no")
            return super().step()

    def start(request: Request) -> None:
        request.uniforms = torch.rand(request.params.max_tokens).double().numpy()

    engine = DecodeEngine(Fragile(model, 60), max_running=2, max_prefill_tokens=99, on_start=start)
    hold = engine.hold()
    hold.result(5)
    futures = [engine.submit(Request([5, 6], SamplingParams(4))) for _ in range(2)]
    last = engine.submit(Request([7], SamplingParams(4)))
    engine.release()
    for future in futures:
        with pytest.raises(MemoryError):
            future.result(5)
    assert len(last.result(5).token_ids) == 4
    engine.close()


def test_settings_are_checked():
    assert settings().eos_token_ids == {2, 3}
    assert (settings().vocab_size, settings().embedding_size) == (60, 64)
    assert settings(full_determinism=True).max_num_seqs == 1
    assert settings(max_model_len=None).max_model_len == 128
    assert settings(load_format="safetensors").checkpoint == "nowhere"
    for key, value in {"max_model_len": 129, "dtype": "float16", "load_format": "gguf", "logprobs_mode": "raw"}.items():
        with pytest.raises(InputError) as caught:
            settings(**{key: value})
        assert caught.value.key == f"actor_rollout_ref.rollout.{key}"
    sizes = {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 1, "data_parallel_size": 1}
    with pytest.raises(InputError, match="tensor_model_parallel_size"):
        require_one_process(SimpleNamespace(**sizes))


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
