# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The CPU rollout's decoder against plain transformers, and its sampling against the exact distribution."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from rejuv_plugin.errors import InputError
from rejuv_plugin.integrations.verl.cpu.rollout.decode import BatchDecoder, Request
from rejuv_plugin.integrations.verl.cpu.rollout.sampling import BatchSampler, SamplingParams, parse_sampling_params
from rejuv_plugin.integrations.verl.cpu.rollout.streams import RequestStreams

EMBEDDED, VOCAB = 64, 60  # four ids only pad the embedding
SIZES = {
    "vocab_size": EMBEDDED,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,  # peaked enough for top-p to bite, not so much that float32 rounds visibly
}
PARAMS = [
    SamplingParams(max_tokens=9),
    SamplingParams(max_tokens=4, temperature=0.6),
    SamplingParams(max_tokens=12, temperature=1.4, top_k=5),
    SamplingParams(max_tokens=7, top_p=0.7),
    SamplingParams(max_tokens=8, temperature=0.8, top_k=9, top_p=0.5),
    SamplingParams(max_tokens=6, temperature=0.0, top_k=3, top_p=0.5),
]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(**SIZES)).eval()


def make_requests(count: int, *, seed: int = 0) -> list[Request]:
    rng = random.Random(seed)
    requests = []
    for i in range(count):
        prompt = [rng.randrange(VOCAB) for _ in range(rng.randint(1, 14))]
        requests.append(Request(prompt, PARAMS[i % len(PARAMS)]))
    streams = RequestStreams(seed=1, replica_rank=0)
    for request in requests:
        request.uniforms = streams.next_uniforms(request.prompt_ids, request.params)
    return requests


def decode(model: torch.nn.Module, *waves: list[Request], steps_between: int = 2, mode="processed_logprobs") -> None:
    """Admit the waves some steps apart and decode all to the end."""
    decoder = BatchDecoder(model, VOCAB, mode)
    for wave in waves:
        decoder.admit(wave)
        for _ in range(steps_between):
            decoder.step()
    while decoder.running:
        decoder.step()


@torch.no_grad()
def teacher_forced(model: torch.nn.Module, request: Request) -> torch.Tensor:
    """Logits before each sampled token, from one forward pass without cache or padding."""
    ids = torch.tensor([request.prompt_ids + request.token_ids])
    return model(ids).logits[0, len(request.prompt_ids) - 1 : -1, :VOCAB]


def expected_log_probs(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Straightforward row-by-row temperature, top-k and top-p in float64."""
    if params.greedy:
        return logits.double().log_softmax(-1)
    rows = []
    for row in (logits / params.temperature).double():
        order = row.argsort(descending=True)
        kept = order[: params.top_k] if params.top_k else order
        probs = row[kept].softmax(-1)
        kept = kept[: int((probs.cumsum(0) - probs < params.top_p).sum())]
        rows.append(torch.full_like(row, float("-inf")).scatter(0, kept, row[kept].log_softmax(-1)))
    return torch.stack(rows)


def test_greedy_is_what_generate_does(model):
    for request in make_requests(8):
        request.params = SamplingParams(max_tokens=10, temperature=0.0)
        request.uniforms = np.zeros(10)
        decode(model, [request])
        ids = torch.tensor([request.prompt_ids])
        banned = [[token] for token in range(VOCAB, EMBEDDED)]
        wanted = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=10, bad_words_ids=banned,
            pad_token_id=0,
        )  # fmt: skip
        assert request.token_ids == wanted[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("mode", ["processed_logprobs", "raw_logprobs"])
def test_log_probs_are_the_teacher_forced_ones(model, mode):
    requests = make_requests(24)
    decode(model, requests[:9], requests[9:10], requests[10:], mode=mode)
    for request in requests:
        assert len(request.token_ids) == len(request.log_probs) == request.params.max_tokens
        logits = teacher_forced(model, request)
        processed = expected_log_probs(logits, request.params)
        wanted = processed if mode == "processed_logprobs" else logits.double().log_softmax(-1)
        index = torch.tensor(request.token_ids).unsqueeze(1)
        assert torch.isfinite(processed.gather(1, index)).all()  # never outside top-k and top-p
        torch.testing.assert_close(
            torch.tensor(request.log_probs).double(), wanted.gather(1, index).squeeze(1), atol=1e-5, rtol=0
        )


def test_untruncated_log_probs_are_the_actors(model):
    request = make_requests(1)[0]
    request.params = SamplingParams(max_tokens=16, temperature=0.7)
    request.uniforms = RequestStreams(seed=2, replica_rank=0).next_uniforms(request.prompt_ids, request.params)
    decode(model, [request])
    actor = (teacher_forced(model, request) / 0.7).log_softmax(-1)
    index = torch.tensor(request.token_ids).unsqueeze(1)
    torch.testing.assert_close(torch.tensor(request.log_probs), actor.gather(1, index).squeeze(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("params", PARAMS[:5], ids=str)
def test_samples_follow_the_exact_distribution(model, params):
    draws = 4000
    params = replace(params, max_tokens=1)
    streams = RequestStreams(seed=3, replica_rank=0)
    prompt = [5, 17, 42]
    requests = [Request(prompt, params, uniforms=streams.next_uniforms(prompt, params)) for _ in range(draws)]
    BatchDecoder(model, VOCAB).admit(requests)
    probs = expected_log_probs(teacher_forced(model, requests[0])[:1], params)[0].exp()
    seen = Counter(request.token_ids[0] for request in requests)
    counts = torch.tensor([seen[token] for token in range(VOCAB)], dtype=torch.float64)
    assert (counts[probs == 0] == 0).all()
    usable = probs * draws >= 5
    wanted, got = probs[usable] * draws, counts[usable]
    # Rare tokens make one class, so that the counts of every class are large enough for the statistic.
    wanted = torch.cat([wanted, (draws - wanted.sum()).clamp(min=1e-9).reshape(1)])
    got = torch.cat([got, (draws - got.sum()).reshape(1)])
    if wanted[-1] < 1:
        wanted, got = wanted[:-1], got[:-1]
    statistic, freedom = float(((got - wanted) ** 2 / wanted).sum()), len(wanted) - 1
    # Mean ``freedom``, variance twice that: five standard deviations.
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5 + 1


def test_tokens_do_not_depend_on_order_or_company(model):
    alone = make_requests(20)
    for request in alone:
        decode(model, [request])
    shuffled = make_requests(20)
    order = list(range(20))
    random.Random(5).shuffle(order)
    decode(model, *[[shuffled[i] for i in order[start : start + 3]] for start in range(0, 20, 3)], steps_between=1)
    assert [r.token_ids for r in shuffled] == [r.token_ids for r in alone]
    for one, other in zip(alone, shuffled, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


def test_padding_ids_are_never_sampled():
    torch.manual_seed(1)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=False)).eval()
    with torch.no_grad():
        model.lm_head.weight[VOCAB:] = model.lm_head.weight[:4] * 50
    requests = make_requests(12)
    decode(model, requests)
    assert max(token for request in requests for token in request.token_ids) < VOCAB


def test_other_architectures_and_sliding_windows():
    torch.manual_seed(0)
    sliding = Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=1)
    for model in (LlamaForCausalLM(LlamaConfig(**SIZES)), Qwen2ForCausalLM(sliding)):
        requests = make_requests(12)
        decode(model.eval(), requests[:5], requests[5:])
        for request in requests:
            wanted = expected_log_probs(teacher_forced(model, request), request.params)
            index = torch.tensor(request.token_ids).unsqueeze(1)
            got = torch.tensor(request.log_probs).double()
            torch.testing.assert_close(got, wanted.gather(1, index).squeeze(1), atol=1e-5, rtol=0)


def test_stop_tokens_end_a_request_and_are_returned(model):
    free = make_requests(1)[0]
    decode(model, [free])
    stop = free.token_ids[4]
    stopped = make_requests(1)[0]
    stopped.params = replace(stopped.params, stop_token_ids=frozenset({stop}))
    decode(model, [stopped])
    assert stopped.token_ids == free.token_ids[: free.token_ids.index(stop) + 1]


def test_broken_weights_are_an_error_not_garbage(model):
    decoder = BatchDecoder(lambda **kwargs: _nan_output(), VOCAB)
    with pytest.raises(FloatingPointError):
        decoder.admit(make_requests(1))
    assert decoder.running == []


def _nan_output():
    return type("Output", (), {"logits": torch.full((1, 1, EMBEDDED), float("nan"))})


def test_extreme_uniforms_never_pick_an_impossible_token():
    logits = torch.tensor([[0.0, 1.0, float("-inf")], [0.0, -200.0, float("-inf")]])
    sampler = BatchSampler([SamplingParams(1), SamplingParams(1)], "processed_logprobs")
    last = torch.full((2,), 1 - 2**-53, dtype=torch.float64)
    assert sampler.sample(logits, last)[0].tolist() == [1, 0]
    assert sampler.sample(logits, torch.zeros(2, dtype=torch.float64))[0].tolist() == [0, 0]


def test_streams_depend_on_content_alone():
    def draw(streams: RequestStreams, prompt: list[int], params: SamplingParams = PARAMS[0]) -> list[float]:
        return streams.next_uniforms(prompt, params).tolist()

    one, other = RequestStreams(7, 0), RequestStreams(7, 0)
    one.set_version(3)
    draw(one, [9, 9])  # another request, and another version before
    one.set_version(4)
    other.set_version(4)
    group = [draw(one, [1, 2]) for _ in range(3)]
    draw(other, [3])
    assert [draw(other, [1, 2]) for _ in range(3)] == group
    assert len({tuple(sample) for sample in group}) == 3
    other.set_version(5)
    assert draw(other, [1, 2]) != group[0]
    for different in (RequestStreams(8, 0), RequestStreams(7, 1)):
        different.set_version(4)
        assert draw(different, [1, 2]) != group[0]
    longer = RequestStreams(7, 0)
    longer.set_version(4)
    assert draw(longer, [1, 2], replace(PARAMS[0], max_tokens=50))[:9] == group[0]


def parse(**raw):
    defaults = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "ignore_eos": False}
    return parse_sampling_params(raw, defaults=defaults, eos_token_ids=frozenset({2}), max_tokens=5)


def test_parameters_of_verls_agent_loops():
    params = parse(temperature=0.5, top_p=0.9, top_k=-1, repetition_penalty=1.0, logprobs=True, stop_token_ids=[4])
    assert params == SamplingParams(5, 0.5, 0.9, 0, frozenset({2, 4}), logprobs=True)
    assert parse(ignore_eos=True, stop_token_ids=[4]).stop_token_ids == {4}
    assert not parse(logprobs=False).logprobs


@pytest.mark.parametrize(
    "raw",
    [
        {"repetition_penalty": 1.1}, {"top_p": 0.0}, {"top_k": -2}, {"temperature": -1.0},
        {"temperature": float("nan")}, {"stop": ["x"]}, {"min_p": 0.1}, {"prompt_logprobs": 0}, {"banana": 1},
    ],
    ids=str,
)  # fmt: skip
def test_parameters_it_cannot_honour_are_refused(raw):
    with pytest.raises(InputError) as caught:
        parse(**raw)
    assert caught.value.key == f"sampling_params.{next(iter(raw))}"
