# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Rollouts with tool tokens in verl's form, and what monitors must say of them, by an unsharded model."""

from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Prompt and response of each rollout; ragged, so that packing, padding and splitting over ranks can all go wrong.
_LENGTHS = ((3, 6), (5, 4), (2, 9), (4, 7), (6, 3), (3, 5), (1, 8), (7, 2))


def rollouts(seed: int, vocabulary: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Prompt, response, and mask of the response: what a tool has said is in it with 0."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for prompt, response in _LENGTHS:
        mask = (torch.rand(response, generator=generator) < 0.7).long()
        mask[0] = 1
        ids = torch.randint(2, vocabulary, (prompt + response,), generator=generator)
        found.append((ids[:prompt], ids[prompt:], mask))
    return found


def batch(chosen: Sequence[tuple[Tensor, Tensor, Tensor]], temperature: float, **more: Any) -> Any:
    """As verl's trainer sends it to its workers; two rollouts to a micro-batch."""
    from verl.utils import tensordict_utils

    prompts, responses, masks = zip(*chosen, strict=True)
    sequences = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    fields = {
        "input_ids": sequences,
        "position_ids": [torch.arange(len(sequence)) for sequence in sequences],
        "prompts": prompts,
        "responses": responses,
        "response_mask": masks,
        "loss_mask": masks,
    }
    tensors = {key: torch.nested.as_nested_tensor(list(value), layout=torch.jagged) for key, value in fields.items()}
    settings = {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 2, "use_fused_kernels": False} | more
    tensors["temperature"] = torch.full((len(sequences),), temperature)
    return tensordict_utils.get_tensordict(tensors, non_tensor_dict=settings)


def loss(model_output: dict, data: Any, dp_group: Any = None) -> tuple[Tensor, dict]:
    """Mean negative log-likelihood of the tokens in the mask, over all ranks."""
    from verl.workers.utils.padding import no_padding_2_padding

    log_probs = no_padding_2_padding(model_output["log_probs"], data)
    mask = torch.nested.to_padded_tensor(data["response_mask"], 0, output_size=log_probs.shape)
    return -(log_probs * mask).sum() / data["batch_num_tokens"] * data["dp_size"], {}


def reference(path: Path, chosen: Sequence[tuple[Tensor, Tensor, Tensor]], temperature: float) -> dict[str, Any]:
    """Entropy, top-1 mass and squares of gradient norms of the HF model in float32, one rollout at a time."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    entropies, tops, losses = [], [], []
    for prompt, response, mask in chosen:
        logits = model(torch.cat([prompt, response])[None], use_cache=False).logits[0]
        says = (logits[len(prompt) - 1 : -1] / temperature)[mask.bool()]
        log_p = says.detach().double().log_softmax(-1)
        entropies += (-(log_p.exp() * log_p).sum(-1)).tolist()
        tops += log_p.exp().amax(-1).tolist()
        losses.append(torch.nn.functional.cross_entropy(says, response[mask.bool()], reduction="sum"))
    (sum(losses) / len(entropies)).backward()

    def squares(*modules: torch.nn.Module) -> float:
        parameters = {p for module in modules for p in module.parameters()}
        return sum(p.grad.double().square().sum().item() for p in parameters)

    return {
        "entropy": sum(entropies) / len(entropies),
        "top1_mass": sum(tops) / len(tops),
        "grad_norm": squares(model),
        "grad_norm_embeddings": squares(model.get_input_embeddings(), model.get_output_embeddings()),
        "grad_norm_attention": [squares(layer.self_attn) for layer in model.model.layers],
        "grad_norm_mlp": [squares(layer.mlp) for layer in model.model.layers],
    }


def expected(path: Path, steps: Sequence[Sequence[tuple[Tensor, Tensor, Tensor]]], temperature: float) -> dict:
    """What the two monitors must say after these mini-batches, if the weights do not change."""
    found = [reference(path, chosen, temperature) for chosen in steps]

    def norm(key: str, layer: int | None = None) -> float:
        squares = [f[key] if layer is None else f[key][layer] for f in found]
        return sqrt(sum(squares) / len(squares))

    layers = range(len(found[0]["grad_norm_mlp"]))
    return {
        "entropy": found[0]["entropy"],
        "top1_mass": found[0]["top1_mass"],
        "grad_norm": norm("grad_norm"),
        "grad_norm_embeddings": norm("grad_norm_embeddings"),
        "grad_norm_attention": [norm("grad_norm_attention", layer) for layer in layers],
        "grad_norm_mlp": [norm("grad_norm_mlp", layer) for layer in layers],
    }


def measured(engine: Any, steps: Sequence[Sequence[tuple[Tensor, Tensor, Tensor]]], temperature: float, **more: Any):
    """On a rank: the monitors' values over these mini-batches, and verl's own gradient norms."""
    from rejuv_plugin.integrations.verl.monitors import gradients, tokens

    monitors = [tokens.attach(engine), gradients.attach(engine)]
    engine.initialize()
    norms = []
    for chosen in steps:
        mine = shard(engine, chosen)
        # Not to be looked at: it is not the training forward.
        with engine.eval_mode():
            engine.infer_batch(batch(mine, 5.0, **more), loss_function=loss)
        with engine.train_mode():
            output = engine.train_batch(batch(mine, temperature, **more), loss_function=loss)
        if engine.is_mp_src_rank_with_outputs():
            norms.append(output["metrics"]["grad_norm"])
    return summed(monitors), norms


def shard(engine: Any, chosen: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Sequence[tuple[Tensor, Tensor, Tensor]]:
    """What this rank has to learn from."""
    return chosen[engine.get_data_parallel_rank() :: engine.get_data_parallel_size()]


def summed(monitors: Sequence[Any]) -> dict[str, Any]:
    """Values of monitors, from their sums over all ranks."""
    import torch.distributed as dist

    found: dict[str, Any] = {}
    for monitor in monitors:
        sums = monitor.sums()
        for tensor in sums.values():
            dist.all_reduce(tensor)
        values = monitor.values(sums)
        found |= values.numbers | values.layers
    return found


def five_steps(engine: Any, watched: bool, exported: Any) -> tuple[dict[str, Tensor], list[dict]]:
    """On a rank: all weights after five steps of the optimizer, and what monitors have said after each, if there are
    any."""
    from rejuv_plugin.integrations.verl.monitors import gradients, tokens

    engine.initialize()
    monitors = [tokens.attach(engine), gradients.attach(engine)] if watched else []
    said = []
    for seed in range(5):
        mine = shard(engine, rollouts(seed, engine.model_config.hf_config.vocab_size))
        with engine.train_mode():
            engine.train_batch(batch(mine, 1.0, calculate_entropy=True), loss_function=loss)
        said.append(summed(monitors))
    return exported(engine), said
