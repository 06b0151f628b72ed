# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Probe-set monitors without a model: sums by hand, values by hand."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers

from rejuv_plugin.checkpoint import read_checkpoint
from rejuv_plugin.errors import InputError
from rejuv_plugin.integrations.verl.monitors.guarded import Guard
from rejuv_plugin.integrations.verl.monitors.unchanged import unchanged
from rejuv_plugin.monitors.attention import AttentionMonitor, queries_of
from rejuv_plugin.monitors.likelihood import LikelihoodMonitor
from rejuv_plugin.monitors.neurons import NeuronMonitor
from rejuv_plugin.monitors.representation import RankMonitor, layers_to_look_at
from rejuv_plugin.ops.attention import attention_entropy
from rejuv_plugin.ops.spectrum import effective_rank, singular_values, stable_rank, threshold_rank
from rejuv_plugin.probe.dialogue import Example, read_examples
from rejuv_plugin.probe.experts import experts_of

CPU = torch.device("cpu")
NAN = pytest.approx(float("nan"), nan_ok=True)


def no_look(name: str) -> None: ...


def test_what_was_seen_is_let_go_of_whatever_happens() -> None:
    """On a device it would be memory of training's to the end of the run."""

    def failing(name: str) -> None:
        monitor.saw(torch.ones(2), torch.ones(2))
        raise RuntimeError("on this rank alone")

    monitor = LikelihoodMonitor(CPU, failing)
    with pytest.raises(RuntimeError, match="on this rank"):
        monitor.sums()
    assert monitor._held is None
    monitor.saw(torch.ones(2), torch.ones(2))
    monitor.turn_off()
    assert monitor._held is None


def test_a_pass_does_nothing_for_who_is_off() -> None:
    from rejuv_plugin.integrations.verl.monitors.probe_pass import ProbePass

    class Run:
        """A stand-in for the probe set through an engine: everybody who is looked for sees one token."""

        engine = SimpleNamespace(eval_mode=nullcontext, module=torch.nn.Module())

        def run(self, *_: Any, **__: Any) -> None:
            for monitor in probe.monitors.values():
                monitor.saw(torch.ones(1), torch.ones(1))

    probe = ProbePass(Run())
    a, b, c = (LikelihoodMonitor(CPU, probe.look) for _ in range(3))
    for name, monitor in zip("abc", (a, b, c), strict=True):
        monitor.name = name
        probe.add(monitor)
    a.turn_off()
    # Somebody told the pass that a is off; nobody asks for c again.
    assert [monitor.sums()["sums"][2] for monitor in (b, b)] == [1, 1]
    assert list(probe.monitors) == ["b"]
    assert [monitor._held for monitor in (a, b, c)] == [None] * 3


def test_ranks_of_a_known_spectrum() -> None:
    sigma = torch.tensor([8.0, 4.0, 4.0, 0.0], dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.manual_seed(0))).Q
    tall = torch.linalg.qr(torch.randn(9, 4, dtype=torch.float64)).Q @ torch.diag(sigma) @ rotation
    found = singular_values(tall.T @ tall)
    # What rounding left of the fourth one would be 1e-8 of the first.
    assert found.flip(0).tolist() == [pytest.approx(8), pytest.approx(4), pytest.approx(4), 0.0]
    assert float(effective_rank(found)) == pytest.approx(2**1.5)  # entropy of 1/2, 1/4, 1/4
    assert [int(threshold_rank(found, share)) for share in (0.5, 0.51, 0.75, 0.99)] == [1, 2, 2, 3]
    assert float(stable_rank(found)) == pytest.approx(96 / 64)


def test_attention_of_grouped_heads_a_window_and_a_cap() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(n, 5, 3, generator=generator) for n in (4, 2))
    visible = torch.ones(5, 5).tril().bool() & ~torch.ones(5, 5).tril(-3).bool()
    found = attention_entropy(query, key, visible, 0.5, softcap=2.0)
    for head, at in ((0, 0), (1, 2), (2, 4), (3, 3)):
        seen = [k for k in range(5) if at - 3 < k <= at]
        weights = [np.exp(2 * np.tanh(float(query[head, at] @ key[head // 2, k]) * 0.5 / 2)) for k in seen]
        p = np.array(weights) / sum(weights)
        assert float(found[head, at]) == pytest.approx(-(p * np.log(p)).sum(), abs=1e-6)


def test_scores_of_neurons() -> None:
    monitor = NeuronMonitor(3, 4, CPU, no_look)
    # Two ranks have two neurons each of layer 0; layer 1 has all on one; nobody has layer 2.
    monitor.has(0, 4)
    monitor.has(0, 4)
    monitor.saw("redo", 0, torch.tensor([[-3.0, 1.0], [1.0, 3.0]]))
    monitor.saw("redo", 0, torch.tensor([[0.1, 7.9]]), first=2)
    monitor.has(1, 2)
    monitor.saw("redo", 1, torch.tensor([[1.0, 1.0]]))
    layers = monitor.values(monitor.sums()).layers
    # 4, 4, 0.1 and 7.9: a mean of 4.
    assert layers["probe/redo_p50"] == [pytest.approx(1), 1, NAN]
    assert layers["probe/redo_p05"][0] == pytest.approx(np.quantile([1, 1, 0.025, 1.975], 0.05))
    assert layers["probe/redo_dormant_0.1"] == [0.25, 0, NAN]
    assert layers["probe/grama_p50"] == [NAN, NAN, NAN]
    assert set(layers) == {metric.name for metric in NeuronMonitor.catalogue}
    # What was handed out is forgotten.
    assert not any(tensor.any() for tensor in monitor.sums().values())


def test_what_was_not_seen_is_no_number() -> None:
    likelihood, ranks = LikelihoodMonitor(CPU, no_look), RankMonitor(3, 4, CPU, no_look)
    assert likelihood.values(likelihood.sums()).flat() == {}
    ranks.saw(0, torch.eye(4)[:2])
    values = ranks.values(ranks.sums())
    assert values.layers["probe/effective_rank"] == [pytest.approx(2), NAN, NAN]
    assert values.numbers == {"probe/rank_rows_per_feature": 0.5}
    attention = AttentionMonitor(1, CPU, no_look)
    attention.saw(0, torch.ones(2, 1, 4), torch.ones(1, 1, 4), 1.0)
    # One key: no choice, and nothing to divide by.
    assert attention.values(attention.sums()).flat() == dict.fromkeys(
        (f"probe/attention_entropy_layers/{q}" for q in ("q05", "q50", "q95")), 0.0
    )


def test_nothing_is_held_between_two_looks() -> None:
    ranks = RankMonitor(4, 8, CPU, no_look)
    assert ranks._held is None
    ranks.saw(0, torch.eye(8))
    assert ranks.sums()["gram"].any()
    assert ranks._held is None


def test_where_they_look() -> None:
    assert [layers_to_look_at(n) for n in (1, 2, 4, 28)] == [(0,), (0, 1), (0, 1, 2, 3), (6, 13, 20, 27)]
    assert [queries_of(n) for n in (1, 3, 4, 9)] == [[0], [0, 1, 2], [0, 1, 2, 3], [1, 3, 5, 8]]


def test_experts_with_biases_are_refused() -> None:
    """gpt-oss: the same tensors by name, the other way round and with biases."""
    config = transformers.GptOssConfig(hidden_size=16, intermediate_size=8, num_local_experts=2, num_hidden_layers=1)
    with torch.device("meta"):
        mlp = transformers.models.gpt_oss.modeling_gpt_oss.GptOssMLP(config)
    with pytest.raises(InputError, match=r"^monitors.neurons: expected MLPs .*, got GptOssMLP. Fix: leave it off.$"):
        experts_of(mlp, "monitors.neurons", "leave it off")


def test_a_guard_keeps_the_first_error() -> None:
    guard, calls = Guard(), []

    @guard
    def work(x: int) -> int:
        calls.append(x)
        return 10 // x

    assert [work(5), work(0), work(1)] == [2, None, None]
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            guard.check()
    assert calls == [5, 0]


def test_unchanged_puts_back_buffers_generators_and_dropout() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5))
    state, random = {name: t.clone() for name, t in model.state_dict().items()}, torch.get_rng_state()
    with unchanged([model], CPU):
        first, second = (model(torch.randn(8, 3, generator=torch.Generator().manual_seed(0))) for _ in range(2))
        assert torch.equal(first, second)
        torch.rand(1)
        assert not torch.equal(model[0].running_mean, state["0.running_mean"])
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert model[1].p == 0.5


def test_the_probe_set_is_the_beginning_of_the_file(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}+{i}=", "response": "x" * n} for i, n in enumerate((3, 40, 5, 6))]
    path = tmp_path / "probe.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    model = read_checkpoint(str(tiny.save_base(tmp_path / "model")), "model")

    def read(max_tokens: int = 1024, examples: int = 16) -> list[Example]:
        return read_examples(model, str(path), max_tokens, "data", examples)

    whole = read()
    assert [len(example.targets) for example in whole] == [4, 41, 6, 7]
    assert read(examples=2) == whole[:2]
    short = read(max_tokens=len(whole[0].ids))
    assert [len(example.ids) for example in short] == [len(whole[0].ids)] * 4
    assert short[1].cut
    with pytest.raises(InputError, match="data: expected responses within the first 3 tokens, got none"):
        read(max_tokens=3)
