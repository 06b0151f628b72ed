# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Probe-set monitors on verl's FSDP engines: what one whole model says, at any world size, and nothing is changed."""

from collections.abc import Iterator
from pathlib import Path

import architectures
import probe_reference
import pytest
from rank_server import Server

VOCABULARY = architectures.SIZES["vocab_size"]
EXAMPLES = probe_reference.examples(VOCABULARY)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server("fsdp_cpu.engines", VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_PLUGINS="rejuvenation_cpu")
    yield server
    server.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, tuple]]:
    found = {}
    for variant in ("llama-biases", "mistral", "qwen3-moe", "gemma2"):
        path = tmp_path_factory.mktemp(variant)
        model = architectures.make(variant)
        model.save_pretrained(path)
        found[variant] = path, probe_reference.reference(model, EXAMPLES)
    return found


def look(path: Path, strategy: str, model: dict, config: dict) -> tuple[dict, dict]:
    import probe_on_rank

    from fsdp_cpu import engines

    engine = engines.build(path, strategy, model=model, **config)
    engine.initialize()
    return probe_on_rank.measured(engine, EXAMPLES)


@pytest.mark.parametrize(
    ("variant", "strategy", "world", "model", "config"),
    [
        ("llama-biases", "fsdp", 1, {}, {}),
        ("llama-biases", "fsdp2", 2, {"enable_gradient_checkpointing": False}, {}),
        ("llama-biases", "fsdp", 4, {"use_remove_padding": True}, {"fsdp_size": 2}),
        ("mistral", "fsdp2", 4, {}, {"param_offload": True, "optimizer_offload": True}),
        ("mistral", "fsdp", 2, {"use_remove_padding": True}, {"param_offload": True, "optimizer_offload": True}),
        ("gemma2", "fsdp2", 1, {}, {}),
        ("qwen3-moe", "fsdp2", 2, {}, {}),
        ("qwen3-moe", "fsdp", 1, {"use_remove_padding": True}, {}),
    ],
    ids=str,
)
def test_what_one_whole_model_says(
    server: Server, models: dict, variant: str, strategy: str, world: int, model: dict, config: dict
) -> None:
    path, expected = models[variant]
    for found in server.run(look, world, path, strategy, model, config):
        probe_reference.assert_equal(found, expected, 1e-5)
