# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The CPU rollout's server with a tiny model, without Ray."""

import asyncio
import random
import time
from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rejuv_plugin.integrations.verl.cpu.rollout.decode import BatchDecoder
from rejuv_plugin.integrations.verl.cpu.rollout.settings import EngineSettings

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
