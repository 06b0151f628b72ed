# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What is read from a model before RL, against the long way round."""

import architectures
import numpy as np
import probe_reference
import pytest
import torch
from torch.func import functional_call, hessian
from transformers import AutoConfig, AutoModelForCausalLM

from rejuv_plugin.diagnose import answers, calibration_pass
from rejuv_plugin.diagnose.calibration_pass import read, summed_nll, watched
from rejuv_plugin.diagnose.hessian import top_eigenvalue
from rejuv_plugin.diagnose.likelihood import likelihood
from rejuv_plugin.diagnose.sharpness import RADIUS, along, sharpness
from rejuv_plugin.errors import InputError
from rejuv_plugin.monitors.neurons import NeuronMonitor
from rejuv_plugin.monitors.representation import RankMonitor
from rejuv_plugin.probe.decoder import ModelShape
from rejuv_plugin.probe.dialogue import Example
from rejuv_plugin.probe.entropy_scan import check_logits

CPU = torch.device("cpu")


def no_look(name: str) -> None: ...


def seen(model, examples):
    shape = ModelShape.of(model.config)
    neurons = NeuronMonitor(shape.layers, shape.width, CPU, no_look)
    ranks = RankMonitor(shape.layers, shape.hidden, CPU, no_look)
    with watched(model, neurons, ranks) as after_forward:
        tokens = read(model, examples, 1.0, "--sft", backward=True, after_forward=after_forward)
    return tokens, [monitor.values(monitor.sums()) for monitor in (neurons, ranks)]


@pytest.mark.parametrize("variant", ["qwen2-tied", "mistral", "gemma2", "qwen3-moe", "mixtral"])
def test_a_pass_is_that_of_the_reference(variant: str) -> None:
    model = architectures.make(variant)
    if variant == "gemma2":
        # The reference has no cap on logits.
        model.config.final_logit_softcapping = None
    examples = probe_reference.examples(96)
    tokens, monitored = seen(model, examples)
    found = likelihood(tokens, None, 0).numbers
    # No hook is left, and no gradient.
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    numbers, layers = probe_reference.reference(model, examples)
    assert found["entropy"].value == pytest.approx(numbers["probe/entropy"], rel=1e-4)
    assert found["nll"].value == pytest.approx(numbers["probe/nll"], rel=1e-4)
    assert monitored[1].numbers["probe/rank_rows_per_feature"] == numbers["probe/rank_rows_per_feature"]
    for name, values in (monitored[0].layers | monitored[1].layers).items():
        np.testing.assert_allclose(values, layers[name], rtol=2e-3, err_msg=name)


def test_widths_that_differ_by_layer() -> None:
    config = AutoConfig.for_model("gemma3n_text", intermediate_size=[8, 16], num_hidden_layers=2)
    assert ModelShape.of(config).width == 16


def test_numbers_of_tokens() -> None:
    model, examples = architectures.make("qwen3"), probe_reference.examples(96)
    warm = read(model, examples, 2.0, "--sft")
    for example, tokens in zip(examples, warm, strict=True):
        logits = model(torch.tensor([example.ids])).logits[0, torch.tensor(example.targets) - 1].double()
        said = torch.tensor(example.ids)[list(example.targets)]
        p, cool = logits.softmax(-1), (logits / 2).softmax(-1)
        assert torch.allclose(tokens.entropy.double(), torch.special.entr(cool).sum(-1), atol=1e-4)
        assert torch.allclose(tokens.top1.double(), cool.amax(-1), atol=1e-5)
        assert torch.allclose(tokens.confidence.double(), p.amax(-1), atol=1e-5)
        assert torch.allclose(tokens.nll.double(), -p.gather(1, said[:, None])[:, 0].log(), atol=1e-4)
        assert torch.equal(tokens.correct, p.argmax(-1) == said)


def test_models_that_monitors_do_not_know_are_named() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=8, n_layer=2, n_head=2)).eval().requires_grad_(False)
    with pytest.raises(InputError, match=r"^--signals: expected a model with a list of 2 decoder layers, got GPT2"):
        seen(model, probe_reference.examples(96))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    # Without neurons and ranks any causal language model will do.
    tokens = read(model, probe_reference.examples(96), 1.0, "--sft")
    assert all(t.nll.isfinite().all() for t in tokens)


def test_logits_may_be_cut_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model, examples = architectures.make("gemma2"), probe_reference.examples(96)
    whole, values = seen(model, examples)
    monkeypatch.setattr(calibration_pass, "LOGITS", 2 * 96)
    parts, again = seen(model, examples)
    assert max(len(example.targets) for example in examples) > 2
    for a, b in zip(whole, parts, strict=True):
        assert torch.allclose(a.nll, b.nll, rtol=1e-5)
        assert torch.equal(a.correct, b.correct)
    for name in ("probe/grama_p50", "probe/redo_p05"):
        np.testing.assert_allclose(again[0].layers[name], values[0].layers[name], rtol=1e-4)


@pytest.mark.parametrize(
    ("model_type", "options", "known"),
    [
        ("granite", {"logits_scaling": 8.0}, True),
        ("cohere", {"logit_scale": 0.0625}, True),
        ("gemma2", {"final_logit_softcapping": 30.0}, True),
        ("falcon_h1", {"lm_head_multiplier": 0.1}, False),
    ],
)
def test_logits_that_are_more_than_the_unembeddings_output(model_type: str, options: dict, known: bool) -> None:
    torch.manual_seed(0)
    sizes = architectures.SIZES | {"head_dim": 6, "mamba_d_ssm": 48, "mamba_n_heads": 4, "mamba_d_head": 12}
    config = AutoConfig.for_model(model_type, **(sizes | options))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval().requires_grad_(False)
    example = probe_reference.examples(96)[0]
    if not known:
        with pytest.raises(InputError, match=r"--sft: expected logits that are .*, got FalconH1.*differ.*Fix: less"):
            check_logits(model, example.ids, "--sft", "less")
        return
    check_logits(model, example.ids, "--sft", "less")
    logits = model(torch.tensor([example.ids])).logits[0, torch.tensor(example.targets) - 1].double()
    (tokens,) = read(model, [example], 1.0, "--sft")
    assert torch.allclose(tokens.entropy.double(), torch.special.entr(logits.softmax(-1)).sum(-1), atol=1e-4)


def test_gap_to_the_base_and_positions() -> None:
    examples = [e for e in probe_reference.examples(96) if len(e.targets) > 1]
    base, sft = (read(architectures.make("qwen3", seed), examples, 1.0, "--sft") for seed in (0, 1))
    found = likelihood(sft, base, 0)
    gaps = [(a.entropy - b.entropy).abs().double() for a, b in zip(sft, base, strict=True)]
    assert found.numbers["entropy_gap"].value == pytest.approx(float(torch.cat(gaps).mean()))
    means = [torch.cat([t.entropy for t in side]).double().mean() for side in (sft, base)]
    assert found.numbers["entropy_ratio"].value == pytest.approx(float(means[0] / means[1]))
    rise = torch.cat([a.nll.double() - b.nll.double() for a, b in zip(sft, base, strict=True)]).mean()
    assert found.numbers["nll_rise"].value == pytest.approx(float(rise))
    shown = found.positions["entropy_gap"]
    assert shown["position"] == list(range(len(shown["value"])))
    assert shown["count"] == [sum(len(g) > i for g in gaps) for i in shown["position"]]
    assert shown["value"][3] == pytest.approx(float(np.mean([g[3] for g in gaps if len(g) > 3])))
    low, high = found.numbers["entropy_gap"].interval
    assert low < found.numbers["entropy_gap"].value < high
    diagram = found.curves["calibration_error"]
    assert len(diagram["x"]) == len(diagram["y"]) <= 16


def test_long_responses_are_shown_by_some_positions_at_a_time() -> None:
    from rejuv_plugin.diagnose.likelihood import _by_position

    shown = _by_position([torch.arange(300.0), torch.zeros(2)])
    assert len(shown["position"]) == 100
    assert shown["position"][:2] == [0, 3]
    assert shown["count"][:2] == [5, 3]
    assert shown["value"][1] == 4.0


def test_a_model_that_overflows_is_named() -> None:
    model = architectures.make("qwen3")
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("inf")
    with pytest.raises(InputError, match=r"^--sft: expected finite activations"):
        read(model, probe_reference.examples(96), 1.0, "--sft")


def small() -> tuple[torch.nn.Module, list[Example]]:
    sizes = {"hidden_size": 4, "intermediate_size": 3, "num_attention_heads": 1, "num_key_value_heads": 1}
    model = architectures.make("qwen3", num_hidden_layers=1, vocab_size=11, head_dim=4, **sizes)
    return model, [Example((3, 4, 5, 6, 7), (2, 3, 4)), Example((5, 9, 8), (1, 2))]


def loss_of(model, examples, parameters):
    total = sum(
        functional_call(_Nll(model, example), {f"model.{k}": v for k, v in parameters.items()}, ())
        for example in examples
    )
    return total / sum(len(example.targets) for example in examples)


class _Nll(torch.nn.Module):
    def __init__(self, model, example) -> None:
        super().__init__()
        self.model, self._example = model, example

    def forward(self) -> torch.Tensor:
        return summed_nll(self.model, self._example)


def assert_counts(ticks: list[tuple[int, int]]) -> None:
    """One by one from 0 on, never whole before the end, and whole there."""
    done = [done for done, _ in ticks]
    assert list(dict.fromkeys(done)) == list(range(done[-1] + 1))
    assert done[-1] > 10
    assert all(some < most for some, most in ticks[:-2])
    assert ticks[-1] == (done[-1], done[-1])


def test_a_hessian_that_does_not_converge_stays_below_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    model, examples = small()
    monkeypatch.setattr("rejuv_plugin.diagnose.hessian._TOLERANCE", 1e-30)
    monkeypatch.setattr("rejuv_plugin.diagnose.hessian._RESTARTS", 2)
    ticks: list[tuple[int, int]] = []
    assert top_eigenvalue(model, examples, 0, lambda *tick: ticks.append(tick)) is None
    assert ticks[0] == (0, 25)
    assert 20 <= ticks[-1][0] <= 25


def test_the_largest_eigenvalue_is_that_of_the_whole_hessian() -> None:
    model, examples = small()
    model.set_attn_implementation("eager")
    names = [name for name, _ in model.named_parameters()]
    sizes = [p.numel() for p in model.parameters()]
    start = torch.cat([p.detach().reshape(-1) for p in model.parameters()])

    def of(vector):
        parts = [part.view_as(p) for part, p in zip(vector.split(sizes), model.parameters(), strict=True)]
        return loss_of(model, examples, dict(zip(names, parts, strict=True)))

    exact = torch.linalg.eigvalsh(hessian(of)(start).double())
    model.set_attn_implementation("sdpa")
    ticks: list[tuple[int, int]] = []
    found = top_eigenvalue(model, examples, 0, lambda *tick: ticks.append(tick))
    assert found == pytest.approx(float(exact[-1]), rel=2e-3)
    assert_counts(ticks)
    assert not any(p.requires_grad for p in model.parameters())


def test_sharpness_is_the_rise_along_the_gradient() -> None:
    model, examples = small()
    before = [p.clone() for p in model.parameters()]
    ticks: list[tuple[int, int]] = []
    found = sharpness(model, examples, "--sft", lambda *tick: ticks.append(tick))
    assert_counts(ticks)
    assert len({most for _, most in ticks}) == 2, "what the search needed is known before the curve is drawn"
    assert all(torch.equal(p, b) and p.grad is None for p, b in zip(model.parameters(), before, strict=True))
    parameters = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    in_graph = loss_of(model, examples, parameters)
    gradient, loss = torch.autograd.grad(in_graph, list(parameters.values())), float(in_graph.detach())
    length = torch.cat([g.reshape(-1) for g in gradient]).norm()

    def at(step: float) -> float:
        moved = {n: p.detach() + step * g for (n, p), g in zip(parameters.items(), gradient, strict=True)}
        return float(loss_of(model, examples, moved))

    assert found.numbers["sharpness_sam"].value == pytest.approx(at(RADIUS / length) - loss, rel=1e-3)
    critical = 2 / found.numbers["critical_sharpness"].value
    assert at(-0.95 * critical) < loss < at(-1.05 * critical)
    drawn = found.curves["critical_sharpness"]
    assert drawn["x"][4] == pytest.approx(critical * float(length), rel=1e-4)
    assert drawn["y"][0] == pytest.approx(loss, rel=1e-5)
    assert drawn["y"][2] == pytest.approx(at(-0.5 * critical), rel=1e-4)


def test_weights_come_back_after_an_error() -> None:
    model, _ = small()
    before = [p.clone() for p in model.parameters()]

    def fail() -> float:
        assert not torch.equal(next(model.parameters()), before[0])
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"), along(model, before, fail) as at:
        at(0.3)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_answers_by_hand() -> None:
    found = answers.variety([[2, 6], [0, 2]], [[1.0, 2.0], [float("nan"), 3.0]], [[0.5, 0.5], [float("nan"), 1.0]], 0)
    assert found.numbers["entropy_sampled"].value == pytest.approx((2 + 12 + 6) / 10)
    assert found.numbers["top1_mass_sampled"].value == pytest.approx(0.6)
    # The sampler cannot tell.
    blind = answers.variety([[2]], [[float("nan")]], [[float("nan")]], 0)
    assert blind.numbers == {"entropy_sampled": None, "top1_mass_sampled": None}
    rows = [[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0.2, 0.3, 0.2, 0.2]]
    scores = torch.tensor(rows, dtype=torch.float64)
    numbers = {name: e.value for name, e in answers.passes(scores, 0.5, 0).numbers.items()}
    assert numbers["pass_at_1"] == pytest.approx(9 / 20)
    assert numbers["pass_at_k"] == pytest.approx(0.6)
    assert numbers["pass_gap"] == pytest.approx(0.15)
    # Of the last prompt no answer passes, and yet they do not earn the same.
    assert numbers["gradient_share"] == pytest.approx(0.4)
    assert numbers["pass_floor"] == pytest.approx(1 - 2**-0.25)
    assert answers.passes(scores, 0.5, 0).curves["pass_at_k"]["x"] == [1, 2, 3, 4]
    # Single answers do not differ: no sign of anything.
    single = answers.passes(scores[:, :1], 0.5, 0)
    assert single.numbers["pass_at_1"].value == single.numbers["pass_at_k"].value == 0.6
    assert [single.numbers[name] for name in ("pass_gap", "gradient_share", "pass_floor")] == [None] * 3
    assert single.curves == {}
    assert answers.finished([[True, False], [True, True]], 0).numbers["finished"].value == 0.75
