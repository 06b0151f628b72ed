# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Probe-set monitors on verl's FSDP engines: what one whole model says, at any world size, and nothing is changed."""

from pathlib import Path

import architectures
import probe_reference
import pytest
from rank_server import Server

VOCABULARY = architectures.SIZES["vocab_size"]
EXAMPLES = probe_reference.examples(VOCABULARY)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, tuple]]:
    found = {}
    for variant in ("llama-biases", "mistral", "qwen3-moe", "gemma2"):
        path = tmp_path_factory.mktemp(variant)
        # Which the probe must do without, and training not.
        model = architectures.make(variant, attention_dropout=0.2)
        model.save_pretrained(path)
        found[variant] = path, probe_reference.reference(model, EXAMPLES)
    return found


def look(path: Path, strategy: str, model: dict, config: dict, **off: bool) -> tuple[dict, dict]:
    import probe_on_rank

    from fsdp_cpu import engines

    engine = engines.build(path, strategy, model=model, **config)
    engine.initialize()
    return probe_on_rank.measured(engine, EXAMPLES, **off)


def look_without_neurons(path: Path) -> tuple[dict, dict]:
    return look(path, "fsdp2", {}, {}, neurons=False)


def train(path: Path, strategy: str, probed: bool) -> dict:
    import probe_on_rank

    from fsdp_cpu import engines

    engine = engines.build(path, strategy, lr=1e-3, param_offload=True, optimizer_offload=True)
    engine.initialize()
    return probe_on_rank.trained(engine, EXAMPLES, probed, engines.exported)


def look_with_a_hook_that_fails(path: Path) -> tuple[dict[str, str], int]:
    import probe_on_rank

    from fsdp_cpu import engines
    from rejuv_plugin.monitors.attention import AttentionMonitor

    calls = []

    def fail(*_: object, **__: object) -> None:
        calls.append(1)
        raise ArithmeticError("in a hook")

    AttentionMonitor.saw = fail
    engine = engines.build(path, "fsdp2")
    engine.initialize()
    return probe_on_rank.outcomes(engine, EXAMPLES, passes=4), len(calls)


@pytest.mark.parametrize(
    ("variant", "strategy", "world", "model", "config"),
    [
        ("llama-biases", "fsdp", 1, {}, {}),
        ("llama-biases", "fsdp2", 2, {"enable_gradient_checkpointing": False}, {}),
        ("llama-biases", "fsdp", 4, {"use_remove_padding": True}, {"fsdp_size": 2}),
        ("mistral", "fsdp2", 4, {}, {"param_offload": True, "optimizer_offload": True}),
        ("mistral", "fsdp", 2, {"use_remove_padding": True}, {"param_offload": True, "optimizer_offload": True}),
        ("gemma2", "fsdp2", 1, {}, {}),
        ("mistral", "fsdp2", 1, {"lora_rank": 4, "target_modules": "all-linear"}, {}),
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


def test_without_neurons_nothing_is_differentiated(server: Server, models: dict) -> None:
    path, (numbers, layers) = models["mistral"]
    left = {name: values for name, values in layers.items() if "redo" not in name and "grama" not in name}
    probe_reference.assert_equal(server.run(look_without_neurons, 2, path)[1], (numbers, left), 1e-5)


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
def test_training_goes_on_as_if_nobody_had_looked(server: Server, models: dict, strategy: str) -> None:
    path, _ = models["mistral"]
    alone, probed = (server.run(train, 2, path, strategy, probed) for probed in (False, True))
    probe_reference.assert_same_training(alone, probed)


def test_a_hook_that_fails_disables_its_monitor_alone(server: Server, models: dict) -> None:
    path, _ = models["llama-biases"]
    for outcome, calls in server.run(look_with_a_hook_that_fails, 1, path):
        assert outcome == {"probe": "", "neurons": "", "ranks": "", "attention": "ArithmeticError('in a hook')"}
        assert calls == 1
