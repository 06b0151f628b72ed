# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The monitors of every step say on a GPU what they say on a CPU. Skipped where there is none."""

import pytest
import token_logits
import torch

from rejuv_plugin.monitors.gradients import GradientsMonitor
from rejuv_plugin.monitors.weights import WeightsMonitor
from rejuv_plugin.ops.distribution import moments

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use"),
]


@pytest.mark.parametrize("vocabulary", [40, 9001, 151_936])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens(dtype: torch.dtype, vocabulary: int) -> None:
    logits, rows, temperature = token_logits.case(dtype, vocabulary)
    before = torch.cuda.memory_allocated()
    on_gpu = [tensor.cuda() for tensor in (logits, rows, temperature)]
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    peak, *sums = moments(*on_gpu).cpu()
    assert torch.cuda.max_memory_allocated() - held <= 1024 < held - before, "three numbers a row"
    assert torch.equal(peak, logits[rows].amax(-1).float())
    token_logits.check(torch.stack(sums), logits[rows], temperature)


def test_gradients_and_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"layers.0.mlp.up.weight": (3000, 3000), "layers.1.attn.q.weight": (70, 3), "lm_head.weight": (0, 5)}
    streams = [
        {name: torch.randn(shape, generator=generator) * scale for name, shape in shapes.items()}
        for scale in (1, 1e-3, 30)
    ]
    told = {}
    for device in ("cpu", "cuda"):
        gradients, weights = GradientsMonitor(2, counts_steps=True), WeightsMonitor(2, 4096, lambda *_: None)
        for each in streams:
            each = {name: tensor.to(device) for name, tensor in each.items()}
            gradients.add(each.items(), scale=torch.tensor(8.0, device=device))
            list(weights.watch(each.items()))
        told[device] = {**gradients.values(gradients.sums()).flat(each=True), **weights.values(weights.sums()).flat()}
    assert told["cuda"].keys() == told["cpu"].keys() >= {"grad_norm", "update_ratio"}
    assert told["cuda"] == pytest.approx(told["cpu"], rel=1e-7)
