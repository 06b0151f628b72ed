# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Attribution against slow, obvious references: the model's own logits, loops in float64, finite differences."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from architectures import VARIANTS, make, shapes_of

from rejuv_plugin.neurons.architectures import architecture_of
from rejuv_plugin.neurons.modules import modules_of
from rejuv_plugin.ops.attribution import column_contributions, gradient_times_activation, rms, through_norm
from rejuv_plugin.probe.attribute import Attribution, attribute
from rejuv_plugin.probe.capture import trace

IDS = [1, 5, 9, 30, 44, 8, 70, 3, 11, 12]
TARGETS = [3, 4, 8]


def attributed(model: Any, targets: Sequence[int] = TARGETS, each: bool = False) -> Attribution:
    config = model.config.to_dict()
    architecture, modules = architecture_of(config, "--sft"), modules_of(config, shapes_of(model), "--sft")
    seen = trace(model, architecture, torch.tensor(IDS))
    return attribute(model, architecture, modules, seen, targets, each=each)


def logits_before_the_cap(model: Any, targets: Sequence[int] = TARGETS) -> torch.Tensor:
    logits = model(torch.tensor([IDS])).logits[0]
    cap = getattr(model.config, "final_logit_softcapping", None)
    logits = torch.atanh(logits / cap) * cap if cap else logits
    return logits[torch.tensor(targets) - 1, torch.tensor(IDS)[targets]]


@pytest.mark.parametrize("variant", VARIANTS)
def test_embeddings_and_all_writers_add_up_to_the_models_own_logit(variant: str) -> None:
    model = make(variant)
    found = attributed(model)
    own = logits_before_the_cap(model)
    scale = own.abs().max()
    assert scale > 0.1
    assert (found.logits - own).abs().max() <= 1e-5 * scale
    assert (found.rebuilt - own).abs().max() <= 1e-5 * scale


@pytest.mark.parametrize("variant", ["qwen2", "llama-biases", "gemma2", "phi3"])
def test_a_wrong_map_shows_in_the_reconstruction(variant: str) -> None:
    model = make(variant)
    modules = modules_of(model.config.to_dict(), shapes_of(model), "--sft")
    architecture = architecture_of(model.config.to_dict(), "--sft")
    without_one = [m for m in modules if m.path != modules[-1].path]
    found = attribute(model, architecture, without_one, trace(model, architecture, torch.tensor(IDS)), TARGETS)
    assert (found.rebuilt - found.logits).abs().max() > 0.01 * found.logits.abs().max()


def slope_by_differences(model: Any, path: str, position: int, row: int, step: float = 0.01) -> float:
    """Scale one output of a module at one position by 1 +- step; the slope of the sum of the kept logits."""
    sums = []
    for factor in (1 + step, 1 - step):

        def scale(module: Any, args: Any, output: torch.Tensor, factor: float = factor) -> torch.Tensor:
            scaled = output.clone()
            scaled[0, position, row] *= factor
            return scaled

        handle = model.get_submodule(path).register_forward_hook(scale)
        sums.append(logits_before_the_cap(model).double().sum().item())
        handle.remove()
    return (sums[0] - sums[1]) / (2 * step)


@pytest.mark.parametrize("variant", ["qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3"])
def test_rows_agree_with_finite_differences(variant: str) -> None:
    # In float64 as far as transformers lets it: its norms go through float32.
    model = make(variant).double()
    modules = modules_of(model.config.to_dict(), shapes_of(model), "--sft")
    scores = attributed(model).scores
    checked = 0
    for module in [m for m in modules if m.kind == "row" and ".layers.1." in m.name]:
        for p, target in enumerate(TARGETS):
            largest = int(scores[module.name][p].abs().argmax())
            for neuron in (largest, module.count - 1):
                slope = slope_by_differences(model, module.path, target - 1, module.start + neuron)
                assert scores[module.name][p, neuron].item() == pytest.approx(slope, rel=0.02, abs=2e-4)
                checked += abs(slope) > 2e-3
    assert checked >= 10, "slopes of zero show nothing"


@pytest.mark.parametrize("variant", ["qwen3-moe", "mixtral", "llama"])
def test_rows_of_a_layer_without_biases_sum_to_the_slope_of_their_weights(variant: str) -> None:
    """Scale one row of one expert's stacked weights: its neuron scales at all tokens, and all are kept here."""
    model = make(variant)
    modules = modules_of(model.config.to_dict(), shapes_of(model), "--sft")
    targets = list(range(1, len(IDS)))
    scores = attributed(model, targets=targets).scores
    step, checked = 4e-3, 0
    for module in [m for m in modules if m.kind == "row" and m.layer == "model.layers.2"]:
        total = scores[module.name].sum(0)
        neuron = int(total.abs().argmax()) if len(scores[module.name]) else 0
        holder = model.get_submodule(module.path)
        weight = holder.weight if module.expert is None else holder.gate_up_proj[module.expert]
        row, sums = weight[module.offset + neuron], []
        original = row.clone()
        for factor in (1 + step, 1 - step):
            row.copy_(original * factor)
            sums.append(logits_before_the_cap(model, targets).double().sum().item())
        row.copy_(original)
        slope = (sums[0] - sums[1]) / (2 * step)
        assert total[neuron].item() == pytest.approx(slope, rel=0.02, abs=1e-3)
        checked += abs(slope) > 1e-2
    assert checked >= 3, "slopes of zero show nothing"


@pytest.mark.parametrize("variant", ["qwen3-moe", "mixtral"])
def test_experts_are_scored_where_tokens_are_routed_to_them(variant: str) -> None:
    model = make(variant)
    routed: list[torch.Tensor] = []
    gate = model.get_submodule("model.layers.2.mlp.gate")
    handle = gate.register_forward_hook(lambda module, args, output: routed.append(output[2]))
    found = attributed(model, targets=[4])
    handle.remove()
    modules = modules_of(model.config.to_dict(), shapes_of(model), "--sft")
    experts = {m.expert: [] for m in modules if m.layer == "model.layers.2" and m.expert is not None}
    for m in modules:
        if m.layer == "model.layers.2" and m.expert is not None:
            experts[m.expert].append(len(found.scores[m.name]))
    there = set(routed[0][3].tolist())
    assert experts == {e: [int(e in there)] * 3 for e in experts}
    assert "forward" not in model.get_submodule("model.layers.2.mlp.experts").__dict__


def test_columns_agree_with_loops() -> None:
    torch.manual_seed(0)
    x, weight, unembedding, gain, read = (torch.randn(*s) for s in ((2, 5), (7, 5), (2, 7), (7,), (2, 7)))
    scale = rms(read, 1e-6)
    found = column_contributions(x, weight, through_norm(unembedding, gain, scale))
    for p in range(2):
        observed = (sum(float(h) ** 2 for h in read[p]) / 7 + 1e-6) ** 0.5
        for c in range(5):
            terms = [float(weight[h, c]) * float(gain[h]) * float(unembedding[p, h]) / observed for h in range(7)]
            assert found[p, c].item() == pytest.approx(float(x[p, c]) * sum(terms), rel=1e-5)


def test_rows_of_a_module_written_by_hand() -> None:
    torch.manual_seed(0)
    x, weight, u = torch.randn(4, 3), torch.randn(5, 3), torch.randn(5)
    output = (x @ weight.T).requires_grad_()
    target = (torch.nn.functional.silu(output) * u).sum()
    (gradient,) = torch.autograd.grad(target, output)
    silu_slope = output.sigmoid() * (1 + output * (1 - output.sigmoid()))
    expected = output * u * silu_slope
    torch.testing.assert_close(gradient_times_activation(output, gradient), expected)


def test_16_bit_inputs_are_computed_in_float32() -> None:
    x = torch.randn(2, 5).bfloat16()
    weight, v = torch.randn(7, 5).bfloat16(), torch.randn(2, 7)
    found = column_contributions(x, weight, v)
    assert found.dtype == torch.float32
    assert torch.equal(found, column_contributions(x.float(), weight.float(), v))
    assert rms(torch.full((1, 4), 300.0, dtype=torch.float16), 0.0).item() == 300.0


def test_no_parameter_gets_a_gradient_and_no_hook_stays() -> None:
    model = make("qwen2")
    attributed(model)
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_later_target_does_not_reach_back_into_columns() -> None:
    """Columns are exact for their own target; only rows count for kept targets after them."""
    model = make("llama")
    one, many = attributed(model, targets=[4]), attributed(model, targets=[4, 9])
    columns = [name for name in one.scores if name.endswith(("o_proj", "down_proj"))]
    assert all(torch.equal(one.scores[name][0], many.scores[name][0]) for name in columns)
    assert not torch.allclose(
        one.scores["model.layers.0.self_attn.v_proj"][0], many.scores["model.layers.0.self_attn.v_proj"][0]
    )


@pytest.mark.parametrize("variant", ["qwen2", "gemma3", "phi3", "qwen3-moe"])
def test_each_kept_logit_alone_is_what_it_would_be_if_it_were_the_only_one(variant: str) -> None:
    model = make(variant)
    together = attributed(model, targets=[4, 9], each=True)
    alone = [attributed(model, targets=[target]) for target in (4, 9)]
    for name, scores in together.scores.items():
        expected = torch.cat([found.scores[name] for found in alone])
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
