# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What the probe-set monitors say, computed the long way: one whole model in float64, one sequence at a time."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from rejuv_plugin.ops.sharpness import CriticalStep, critical_step
from rejuv_plugin.probe.dialogue import Example


def examples(vocabulary: int) -> list[Example]:
    """Five sequences: no number of ranks but 1 and 5 divides them; one with a tool's tokens between two answers."""
    generator = torch.Generator().manual_seed(3)
    lengths = {12: range(4, 12), 9: range(3, 9), 3: (2,), 15: (*range(5, 8), *range(11, 15)), 10: range(6, 10)}
    return [
        Example(tuple(torch.randint(3, vocabulary, (n,), generator=generator).tolist()), tuple(said))
        for n, said in lengths.items()
    ]


def reference(model: Any, sequences: Sequence[Example]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Numbers, and values by layer.

    Args:
        model: of transformers; made float64.
        sequences: with targets.
    """
    model = model.double().train(False).requires_grad_(True)
    model.set_attn_implementation("eager")
    model.set_experts_implementation("eager")
    layers = model.model.layers
    count = len(layers)
    nll, entropy, tokens = 0.0, 0.0, 0
    redo, grama = [[0.0] * count for _ in range(2)]
    residual: list[list[np.ndarray]] = [[] for _ in range(count)]
    attention: list[list[float]] = [[] for _ in range(count)]
    normalised: list[list[float]] = [[] for _ in range(count)]
    for sequence in sequences:
        inner, outer, handles = {}, {}, []
        for i, layer in enumerate(layers):
            handles.append(layer.register_forward_hook(_keep(outer, i)))
            handles.append(_reader(layer.mlp).register_forward_hook(_keep(inner, i)))
        out = model(torch.tensor([sequence.ids]), output_attentions=True)
        for handle in handles:
            handle.remove()
        log_p = out.logits[0].log_softmax(-1)
        before = torch.tensor(sequence.targets) - 1
        loss = -log_p[before, torch.tensor(sequence.ids)[before + 1]].sum()
        loss.backward()
        nll, tokens = nll + loss.item(), tokens + len(before)
        entropy += -(log_p[before].exp() * log_p[before]).sum().item()
        for i, layer in enumerate(layers):
            residual[i].append(outer[i][1][0].detach().numpy())
            h, g = _neurons(layer.mlp, *inner[i])
            redo[i], grama[i] = redo[i] + h, grama[i] + g
            length = len(sequence.ids)
            for query in {max(0, length * k // 4 - 1) for k in (1, 2, 3, 4)}:
                for p in out.attentions[i][0, :, query].detach().numpy():
                    attention[i].append(-sum(x * np.log(x) for x in p if x > 0))
                    if (seen := int((p > 0).sum())) > 1:
                        normalised[i].append(attention[i][-1] / np.log(seen))
    numbers = {"probe/nll": nll / tokens, "probe/entropy": entropy / tokens}
    numbers["probe/rank_rows_per_feature"] = sum(len(s.ids) for s in sequences) / model.config.hidden_size
    by_layer = {
        "probe/attention_entropy": [float(np.mean(x)) for x in attention],
        "probe/attention_entropy_normalised": [float(np.mean(x)) for x in normalised],
    }
    for name, totals in (("redo", redo), ("grama", grama)):
        scores = [total / total.mean() for total in totals]
        for q in (1, 5, 50):
            by_layer[f"probe/{name}_p{q:02d}"] = [float(np.percentile(s, q)) for s in scores]
        for tau in (0.025, 0.1):
            by_layer[f"probe/{name}_dormant_{tau}"] = [float(np.mean(s <= tau)) for s in scores]
    looked_at = {max(0, count * k // 4 - 1) for k in (1, 2, 3, 4)}
    ranks = [_ranks(np.concatenate(rows)) if i in looked_at else [np.nan] * 3 for i, rows in enumerate(residual)]
    for name, values in zip(("effective_rank", "threshold_rank", "stable_rank"), zip(*ranks, strict=True), strict=True):
        by_layer[f"probe/{name}"] = list(values)
    return numbers, by_layer


def critical(path: Path, before: dict, after: dict, sequences: Sequence[Example]) -> CriticalStep:
    """Of a whole float64 model on the line from one set of weights by HF name to another.

    Args:
        path: of its checkpoint.
        before, after: all weights.
        sequences: with targets.
    """
    model, end = _loaded(path, before), _loaded(path, after)
    starts = [parameter.clone() for parameter in model.parameters()]

    def loss(step: float) -> float:
        for parameter, start, stop in zip(model.parameters(), starts, end.parameters(), strict=True):
            parameter.copy_(start + step * (stop - start))
        nll, tokens = 0.0, 0
        for sequence in sequences:
            before = torch.tensor(sequence.targets) - 1
            log_p = model(torch.tensor([sequence.ids]), use_cache=False).logits[0].log_softmax(-1)
            nll -= log_p[before, torch.tensor(sequence.ids)[before + 1]].sum().item()
            tokens += len(before)
        return nll / tokens

    with torch.no_grad():
        return critical_step(loss)


def _loaded(path: Path, weights: dict) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path / "config.json", folder)
        tensors = {name: tensor.double().contiguous() for name, tensor in weights.items()}
        save_file(tensors, Path(folder, "model.safetensors"), {"format": "pt"})
        options = {"attn_implementation": "eager", "experts_implementation": "eager", "attention_dropout": 0.0}
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, **options).train(False)


def assert_critical(found: Sequence[tuple], path: Path, sequences: Sequence[Example], rate: float) -> CriticalStep:
    """``found``: by rank, what `probe_on_rank.sharpness` gave; its weights are of every rank's the same."""
    numbers, (before, after, later) = found[0]
    assert all(torch.equal(tensor, later[name]) for name, tensor in after.items())
    expected = critical(path, before, after, sequences)
    assert expected.found
    assert numbers == {
        "probe/critical_step": pytest.approx(expected.step, rel=1e-9),
        "probe/critical_sharpness": pytest.approx(2 / (rate * expected.step), rel=1e-9),
    }
    return expected


def _reader(mlp: Any) -> Any:
    return mlp.experts if hasattr(mlp, "experts") else mlp.down_proj


def _keep(seen: dict, i: int) -> Any:
    def hook(_: Any, args: Any, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        output.retain_grad()
        seen[i] = args, output

    return hook


def _neurons(mlp: Any, args: Any, output: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Sums over tokens of absolute activations and of absolute gradients: these by the chain rule from the output's."""
    if not hasattr(mlp, "experts"):
        h, gradient = args[0], output.grad @ mlp.down_proj.weight
        return (t.detach()[0].abs().sum(0).numpy() for t in (h, gradient))
    hidden, index, weights = args
    experts, found = mlp.experts, []
    for e in range(experts.num_experts):
        weight = torch.where(index == e, weights, 0).sum(-1)
        at = weight > 0
        h = experts._apply_gate(hidden[at] @ experts.gate_up_proj[e].T) * weight[at, None]
        found.append((h.detach().abs().sum(0), (output.grad[at] @ experts.down_proj[e]).detach().abs().sum(0)))
    return tuple(torch.cat(parts).numpy() for parts in zip(*found, strict=True))


def _ranks(matrix: np.ndarray) -> list[float]:
    sigma = np.linalg.svd(matrix, compute_uv=False)
    p = sigma / sigma.sum()
    threshold = next(k for k in range(1, len(p) + 1) if p[:k].sum() >= 0.99)
    return [float(np.exp(-(p * np.log(p)).sum())), float(threshold), float((sigma**2).sum() / sigma[0] ** 2)]


def assert_equal(found: Any, expected: tuple[dict[str, float], dict[str, list[float]]], relative: float) -> None:
    """``found``: `Values.numbers` and `Values.layers` of all monitors together."""
    numbers, layers = expected
    assert found[0].keys() == numbers.keys()
    assert found[1].keys() == layers.keys()
    for name, value in numbers.items():
        np.testing.assert_allclose(found[0][name], value, rtol=relative, err_msg=name)
    for name, values in layers.items():
        np.testing.assert_allclose(found[1][name], values, rtol=relative, err_msg=name)


def assert_same_training(alone: list[dict], probed: list[dict]) -> None:
    """By rank, what `probe_on_rank.trained` gave without and with passes."""
    for a, b in zip(alone, probed, strict=True):
        assert a["norms"] == b["norms"]
        assert torch.equal(a["random"], b["random"])
        assert a["weights"].keys() == b["weights"].keys()
        assert all(torch.equal(tensor, b["weights"][name]) for name, tensor in a["weights"].items())
        assert {"probe/nll", "probe/critical_step"} <= b["numbers"]
    norms = next(a["norms"] for a in alone if a["norms"][0] is not None)
    assert len(set(norms)) == len(norms)
