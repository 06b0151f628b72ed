# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Probe-set monitors on verl's FSDP engines: what one whole model says, at any world size, and nothing is changed."""

from collections.abc import Iterator
from pathlib import Path

import architectures
import probe_reference
import pytest
import torch
from rank_server import Server

VOCABULARY = architectures.SIZES["vocab_size"]
EXAMPLES = probe_reference.examples(VOCABULARY)
OFFLOADED = {"param_offload": True, "optimizer_offload": True}


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


def train(path: Path, strategy: str, config: dict, probed: bool) -> dict:
    import probe_on_rank

    from fsdp_cpu import engines

    engine = engines.build(path, strategy, lr=1e-3, **OFFLOADED, **config)
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


def look_without_an_mlp(path: Path) -> dict[str, str]:
    import probe_on_rank

    from fsdp_cpu import engines
    from rejuv_plugin.integrations.verl.monitors import sites_fsdp

    class Renamed:
        """A layer whose MLP has another name, as GraniteMoE's or OPT's."""

        def __init__(self, layer: object) -> None:
            self._layer = layer

        def __getattr__(self, name: str) -> object:
            if name == "mlp":
                raise AttributeError(name)
            return getattr(self._layer, name)

    layers = sites_fsdp.decoder_layers
    sites_fsdp.decoder_layers = lambda *args: [Renamed(layer) for layer in layers(*args)]
    engine = engines.build(path, "fsdp2")
    engine.initialize()
    return probe_on_rank.outcomes(engine, EXAMPLES, passes=1)


@pytest.mark.parametrize(
    ("variant", "strategy", "world", "model", "config"),
    [
        ("llama-biases", "fsdp", 1, {}, {}),
        ("llama-biases", "fsdp2", 2, {"enable_gradient_checkpointing": False}, {}),
        ("llama-biases", "fsdp", 4, {"use_remove_padding": True}, {"fsdp_size": 2}),
        ("mistral", "fsdp2", 4, {}, OFFLOADED),
        ("mistral", "fsdp", 2, {"use_remove_padding": True}, OFFLOADED),
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


@pytest.mark.parametrize(
    ("strategy", "config"), [("fsdp", {}), ("fsdp", {"use_orig_params": True}), ("fsdp2", {})], ids=str
)
def test_training_goes_on_as_if_nobody_had_looked(server: Server, models: dict, strategy: str, config: dict) -> None:
    path, _ = models["mistral"]
    alone, probed = (server.run(train, 2, path, strategy, config, probed, seconds=300) for probed in (False, True))
    probe_reference.assert_same_training(alone, probed)


class Waiting:
    """The generator of a checkpointed forward, as torch 2.11 treats it: if the forward raises, nobody tells it so."""

    def __init__(self, generator: Iterator) -> None:
        self._generator = generator

    def __next__(self) -> None:
        return next(self._generator)

    def throw(self, error: BaseException) -> None:
        raise error


def train_after_a_pass_that_fails(
    path: Path, strategy: str, config: dict, fails: str, as_of_211: bool = False
) -> tuple[dict, dict, list[str]]:
    """Weights as streamed after a look, and after two steps more; and who failed. Half way through the look's
    ``forward`` or ``backward`` all ranks raise. ``as_of_211``: with what torch 2.11 lacks."""
    import probe_on_rank
    from torch.distributed.fsdp import FSDPModule
    from torch.utils import checkpoint

    from fsdp_cpu import engines

    engine = engines.build(path, strategy, lr=1e-3, **config)
    engine.initialize()
    probe_on_rank.update(engine, EXAMPLES)
    hooks, second = [], [module for name, module in engine.module.named_modules() if name.endswith(".mlp")][1]

    def fail(*_: object) -> None:
        hooks.pop().remove()
        raise ArithmeticError("half way")

    if fails == "forward":
        hooks.append(second.register_forward_pre_hook(fail))
    elif fails == "backward":
        hooks.append(second.register_full_backward_pre_hook(fail))
    with pytest.MonkeyPatch.context() as patch:
        if as_of_211:
            patch.delattr(FSDPModule, "reset_iter_state", raising=False)
            name = "_checkpoint_without_reentrant_generator"
            generator = getattr(checkpoint, name)
            patch.setattr(checkpoint, name, lambda *args, **kwargs: Waiting(generator(*args, **kwargs)))
        failed = probe_on_rank.outcomes(engine, EXAMPLES, passes=1) if fails else {}
    streamed = engines.exported(engine)
    for _ in range(2):
        probe_on_rank.update(engine, EXAMPLES)
    return streamed, engines.exported(engine), [name for name, error in failed.items() if "half way" in error]


@pytest.mark.parametrize("as_of_211", [False, True])
@pytest.mark.parametrize("config", [{}, OFFLOADED], ids=str)
@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
def test_training_goes_on_after_a_pass_that_failed(
    server: Server, models: dict, strategy: str, config: dict, as_of_211: bool
) -> None:
    path, _ = models["mistral"]
    (streamed, trained, _), *_ = server.run(train_after_a_pass_that_fails, 2, path, strategy, config, "")
    for fails in ("forward", "backward"):
        for *found, failed in server.run(train_after_a_pass_that_fails, 2, path, strategy, config, fails, as_of_211):
            assert failed == ["probe", "neurons", "ranks", "attention"]
            for weights, expected in zip(found, (streamed, trained), strict=True):
                assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def moves_of_a_look(path: Path, strategy: str) -> list[dict]:
    import probe_on_rank

    from fsdp_cpu import engines

    engine = engines.build(path, strategy, lr=1e-3, **OFFLOADED)
    engine.initialize()
    probe_on_rank.update(engine, EXAMPLES)
    to, seen = engine.to, []
    engine.to = lambda device, **what: seen.append(what) or to(device, **what)
    assert not any(probe_on_rank.outcomes(engine, EXAMPLES, passes=1).values())
    return seen


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
def test_a_look_leaves_the_optimizer_where_it_is(server: Server, models: dict, strategy: str) -> None:
    path, _ = models["llama-biases"]
    there_and_back = [{"model": True, "optimizer": False, "grad": True}] * 2
    assert server.run(moves_of_a_look, 1, path, strategy) == [there_and_back]


def whole_after_a_look(path: Path) -> int:
    """Bytes of the whole parameters that FSDP1's root holds."""
    import probe_on_rank

    from fsdp_cpu import engines

    engine = engines.build(path, "fsdp")
    engine.initialize()
    probe_on_rank.measured(engine, EXAMPLES, neurons=False)
    return engine.module._handle.flat_param._full_param_padded.untyped_storage().size()


def test_a_look_without_a_backward_pass_leaves_no_whole_parameters(server: Server, models: dict) -> None:
    path, _ = models["llama-biases"]
    assert server.run(whole_after_a_look, 2, path) == [0, 0]


def test_a_hook_that_fails_disables_its_monitor_alone(server: Server, models: dict) -> None:
    path, _ = models["llama-biases"]
    for outcome, calls in server.run(look_with_a_hook_that_fails, 1, path):
        assert outcome == {"probe": "", "neurons": "", "ranks": "", "attention": "ArithmeticError('in a hook')"}
        assert calls == 1


def test_a_layer_without_an_mlp_disables_the_neurons_alone(server: Server, models: dict) -> None:
    path, _ = models["llama-biases"]
    (outcome,) = server.run(look_without_an_mlp, 1, path)
    assert "expected MLPs with a down_proj" in outcome.pop("neurons")
    assert outcome == {"probe": "", "ranks": "", "attention": ""}


def step(path: Path, strategy: str, updates: int, model: dict, config: dict) -> tuple:
    import probe_on_rank

    from fsdp_cpu import engines

    engine = engines.build(path, strategy, lr=1e-3, model=model, **config)
    engine.initialize()
    return probe_on_rank.sharpness(engine, EXAMPLES, updates, engines.exported)


@pytest.mark.parametrize(
    ("variant", "strategy", "world", "updates", "model", "config"),
    [
        ("llama-biases", "fsdp", 1, 1, {}, {}),
        ("llama-biases", "fsdp2", 1, 2, {}, OFFLOADED),
        ("mistral", "fsdp", 2, 2, {"use_remove_padding": True}, {"use_orig_params": True}),
        ("mistral", "fsdp2", 2, 1, {}, {"reshard_after_forward": False}),
        ("llama-biases", "fsdp", 4, 1, {}, {"fsdp_size": 2} | OFFLOADED),
        ("qwen3-moe", "fsdp2", 4, 1, {}, {}),
    ],
    ids=str,
)
def test_sharpness_is_that_of_one_whole_model(
    server: Server, models: dict, variant: str, strategy: str, world: int, updates: int, model: dict, config: dict
) -> None:
    path, _ = models[variant]
    found = server.run(step, world, path, strategy, updates, model, config)
    probe_reference.assert_critical(found, path, EXAMPLES, rate=1e-3)


def steps_of_a_hub(path: Path, strategy: str, every: int, fails: str = "") -> list[tuple]:
    """Of four steps: metrics, what failed, how often weights were copied; and the weights in the end. At the third
    point of the first line the last rank fails to ``write``, or all do in the middle of the ``forward``."""
    from functools import partial

    import probe_on_rank
    import torch.distributed as dist

    from fsdp_cpu import engines
    from rejuv_plugin.config import MonitorProbeConfig, MonitorsConfig
    from rejuv_plugin.integrations.verl.monitors import sharpness
    from rejuv_plugin.integrations.verl.monitors.hub import Hub
    from rejuv_plugin.integrations.verl.monitors.probe_pass import probe_monitors

    copied, points, hooks, copies, go = [], [], [], sharpness.copies, sharpness.Line.go

    def fail(*_: object) -> None:
        for hook in hooks:
            hook.remove()
        raise ArithmeticError("on the way")

    def going(line: sharpness.Line, step: float) -> None:
        points.append(step)
        if len(points) == 3 and fails == "write" and dist.get_rank() == dist.get_world_size() - 1:
            fail()
        if len(points) == 3 and fails == "forward":
            second = [module for name, module in engine.module.named_modules() if name.endswith(".mlp")][1]
            hooks.append(second.register_forward_pre_hook(fail))
        go(line, step)

    sharpness.copies = lambda engine: copied.append(1) or copies(engine)
    sharpness.Line.go = going
    engine = engines.build(path, strategy, lr=1e-3)
    engine.initialize()
    off = dict.fromkeys(("neurons", "ranks", "attention"), False)
    config = MonitorsConfig(sharpness=True, probe_set=MonitorProbeConfig(every=every), **off)
    hub = Hub({config.on_probe_set: partial(probe_monitors, engine, EXAMPLES, config)}, "cpu")
    found: list = []
    for number in range(1, 5):
        copied.clear()
        probe_on_rank.update(engine, EXAMPLES)
        report = hub.report(number)
        found.append((sorted(report.values.numbers), report.failed, len(copied)))
    return [*found, engines.exported(engine)]


NLL, CRITICAL = ["probe/entropy", "probe/nll"], ["probe/critical_sharpness", "probe/critical_step"]


def test_weights_are_kept_for_steps_that_are_looked_at(server: Server, models: dict) -> None:
    *found, _ = server.run(steps_of_a_hub, 1, models["mistral"][0], "fsdp2", 3)[0]
    # A process does not know the number of its first step.
    assert found == [(CRITICAL + NLL, {}, 1), ([], {}, 0), (CRITICAL + NLL, {}, 1), ([], {}, 0)]


@pytest.mark.parametrize(("strategy", "fails"), [("fsdp2", "write"), ("fsdp2", "forward"), ("fsdp", "forward")])
def test_sharpness_that_fails_puts_weights_back_and_is_off(
    server: Server, models: dict, strategy: str, fails: str
) -> None:
    path, _ = models["mistral"]
    (*fine, untouched), _ = server.run(steps_of_a_hub, 2, path, strategy, 9, seconds=300)
    assert [numbers for numbers, _, _ in fine] == [CRITICAL + NLL, [], [], []]
    reason = {"sharpness": f"rank {int(fails == 'write')}: ArithmeticError: on the way"}
    for rank, (*found, weights) in enumerate(server.run(steps_of_a_hub, 2, path, strategy, 2, fails, seconds=300)):
        said = NLL if rank == 0 else []
        assert found == [(said, reason, 1), (said, {}, 0), ([], {}, 0), (said, {}, 0)]
        assert all(torch.equal(tensor, weights[name]) for name, tensor in untouched.items())
