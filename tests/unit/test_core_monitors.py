# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The pure part of the monitors of tokens and gradients."""

import math

import architectures
import pytest
import token_logits
import torch

from rejuv_plugin.monitors.gradients import ATTENTION, MLP, REST, GradientsMonitor, place
from rejuv_plugin.monitors.tokens import TokensMonitor
from rejuv_plugin.ops import distribution

LAYERS = 3
EMBEDDINGS, OUTSIDE = 3 * LAYERS, 3 * LAYERS + 1


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("model.layers.0.self_attn.q_proj.weight", ATTENTION),
        ("model.layers.1.self_attn.q_norm.weight", 3 + ATTENTION),
        ("model.layers.2.mlp.experts.gate_up_proj", 6 + MLP),
        ("model.layers.2.mlp.gate.weight", 6 + MLP),
        ("model.layers.1.block_sparse_moe.experts.4.w1.weight", 3 + MLP),
        ("model.layers.1.input_layernorm.weight", 3 + REST),
        ("model.layers.1.post_attention_layernorm.weight", 3 + REST),
        ("model.layers.1.pre_feedforward_layernorm.weight", 3 + REST),
        ("model.language_model.layers.1.linear_attn.in_proj.weight", 3 + ATTENTION),
        ("transformer.h.2.attn.c_attn.weight", 6 + ATTENTION),
        # FSDP's, activation checkpointing's and PEFT's wrappers.
        ("_fsdp_wrapped_module.model.layers.1._fsdp_wrapped_module.self_attn.k_proj.bias", 3 + ATTENTION),
        ("model.layers.1._checkpoint_wrapped_module.mlp.up_proj.weight", 3 + MLP),
        ("base_model.model.model.layers.1.mlp.up_proj.lora_A.default.weight", 3 + MLP),
        ("base_model.model.lm_head.lora_B.default.weight", EMBEDDINGS),
        ("model.embed_tokens.weight", EMBEDDINGS),
        (".lm_head.weight", EMBEDDINGS),
        ("model.norm.weight", OUTSIDE),
        # A layer of multi-token prediction, and towers beside the language model.
        ("model.layers.3.self_attn.q_proj.weight", OUTSIDE),
        ("model.vision_tower.vision_model.encoder.layers.1.self_attn.q_proj.weight", OUTSIDE),
        ("model.visual.blocks.1.attn.qkv.weight", OUTSIDE),
        # megatron-core; the norm before a projection is part of its module.
        ("decoder.layers.1.self_attention.linear_qkv.weight", 3 + ATTENTION),
        ("decoder.layers.1.self_attention.q_layernorm.weight", 3 + ATTENTION),
        ("decoder.layers.1.self_attention.linear_qkv.layer_norm_weight", 3 + REST),
        ("decoder.layers.1.self_attention.linear_kv_up_proj.layer_norm_weight", 3 + ATTENTION),
        ("decoder.layers.1.mlp.linear_fc1.layer_norm_weight", 3 + REST),
        ("decoder.layers.1.pre_mlp_layernorm.weight", 3 + REST),
        ("decoder.layers.1.mlp.experts.linear_fc2.weight3", 3 + MLP),
        ("decoder.layers.1.mlp.router.weight", 3 + MLP),
        ("decoder.final_layernorm.weight", OUTSIDE),
        ("embedding.word_embeddings.weight", EMBEDDINGS),
        ("output_layer.weight", EMBEDDINGS),
        ("vision_model.decoder.layers.1.mlp.linear_fc1.weight", OUTSIDE),
        ("mtp.layers.0.transformer_layer.mlp.linear_fc1.weight", OUTSIDE),
    ],
)
def test_the_place_of_a_parameter(name: str, row: int) -> None:
    assert place(name, LAYERS) == row


@pytest.mark.parametrize("variant", architectures.VARIANTS)
def test_every_layer_of_every_architecture_has_both_parts(variant: str) -> None:
    names = [name for name, _ in architectures.make(variant).named_parameters()]
    rows = {place(name, LAYERS) for name in names}
    assert rows == set(range(3 * LAYERS + 2))
    assert [n for n in names if place(n, LAYERS) == OUTSIDE] == ["model.norm.weight"]


def test_gradients_are_the_root_mean_square_over_steps_whoever_owns_them() -> None:
    """Two ranks own halves of one tensor, and a third tensor is one's alone; layer 2 is not trained."""
    generator = torch.Generator().manual_seed(0)
    steps = [
        {name: torch.randn(6, generator=generator) for name in ("layers.0.mlp.w", "layers.1.attn.w", "lm_head.w")}
        for _ in range(2)
    ]
    monitors = [GradientsMonitor(LAYERS, counts_steps=rank == 0) for rank in range(2)]
    for step in steps:
        for rank, monitor in enumerate(monitors):
            halves = [(name, 8 * g.chunk(2)[rank]) for name, g in step.items() if name != "lm_head.w"]
            monitor.add(halves + [("lm_head.w", 8 * step["lm_head.w"])] * (rank == 1), scale=8.0)
    sums = [monitor.sums() for monitor in monitors]
    values = monitors[0].values({key: sums[0][key] + sums[1][key] for key in sums[0]})

    def expected(*names: str) -> float:
        return math.sqrt(sum(step[name].double().square().sum().item() for step in steps for name in names) / 2)

    assert values.numbers["grad_norm"] == pytest.approx(expected(*steps[0]), rel=1e-7)
    assert values.numbers["grad_norm_embeddings"] == pytest.approx(expected("lm_head.w"), rel=1e-7)
    attention, mlp = values.layers["grad_norm_attention"], values.layers["grad_norm_mlp"]
    assert mlp == pytest.approx([expected("layers.0.mlp.w"), math.nan, math.nan], rel=1e-7, nan_ok=True)
    assert attention == pytest.approx([math.nan, expected("layers.1.attn.w"), math.nan], rel=1e-7, nan_ok=True)
    # Forgotten, and of no step nothing is known.
    assert values.flat().keys() >= {"grad_norm", "grad_norm_mlp_layers/q50"}
    assert monitors[0].values(monitors[0].sums()).flat() == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shards", [1, 4])
def test_entropy_and_top1_of_a_vocabulary_in_shards(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, shards: int
) -> None:
    """Some rows only, in several blocks; peaked rows, a far one, and one with tokens that cannot be."""
    monkeypatch.setattr(distribution, "_BLOCK_CPU", 100)
    logits, rows, temperature = token_logits.case(dtype, 40)
    before = logits.clone()
    parts = logits.chunk(shards, -1)
    found = [distribution.moments(part, rows, temperature) for part in parts]
    peak = torch.stack([own for own, _, _ in found]).amax(0)
    sums = sum(distribution.rebased(own, peak, temperature) for own in found)
    if shards == 1:
        assert torch.equal(sums, found[0][1:])
    assert torch.equal(logits, before)
    token_logits.check(sums, logits[rows], temperature)


def test_a_nan_is_not_hidden() -> None:
    logits, rows = torch.tensor([[0.0, torch.nan], [0.0, 1.0]]), torch.arange(2)
    moments = distribution.moments(logits, rows, torch.ones(2))
    assert [v.isnan().tolist() for v in distribution.entropy_and_top1(moments[1:])] == [[True, False]] * 2


def test_tokens_are_averaged_over_ranks_by_their_numbers() -> None:
    monitors = [TokensMonitor() for _ in range(3)]
    monitors[0].add(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.5, 0.5]))
    monitors[1].add(torch.tensor([6.0]), torch.tensor([0.1]))
    monitors[1].add(torch.tensor([8.0]), torch.tensor([0.4]))
    totals = sum(monitor.sums()["totals"] for monitor in monitors)
    values = monitors[2].values({"totals": totals})
    assert values.flat() == pytest.approx({"entropy": 4.0, "top1_mass": 0.4}, rel=1e-7)
    assert monitors[0].values(monitors[0].sums()).flat() == {}
    monitors[0].add(torch.tensor([1.0, torch.nan]), torch.tensor([0.5, 0.5]))
    assert monitors[0].values(monitors[0].sums()).numbers == {"top1_mass": 0.5}
