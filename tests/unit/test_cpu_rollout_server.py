# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The CPU rollout's server, without Ray: concurrency, aborts, determinism, settings."""

import asyncio
from types import SimpleNamespace

import pytest
import torch
from cpu_server import HF_CONFIG, Served, ask, prompts, settings, until_running, weights_of
from transformers import Qwen2ForCausalLM

from rejuv_plugin.errors import InputError
from rejuv_plugin.integrations.verl.cpu.rollout.decode import BatchDecoder, Request
from rejuv_plugin.integrations.verl.cpu.rollout.engine import DecodeEngine
from rejuv_plugin.integrations.verl.cpu.rollout.sampling import SamplingParams
from rejuv_plugin.integrations.verl.cpu.rollout.settings import require_one_process


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
