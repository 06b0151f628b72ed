# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What finding the neurons costs: python tests/benchmarks/reset_cost.py [hidden] [layers] [tokens] [examples] [repeats]

Both passes and the tally, on loaded random Qwen2 models, against one forward and backward pass of plain transformers
with parameter gradients over the same tokens; alternating in one process. Prints the median of the paired ratios.
"""

import statistics
import sys
import time

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rejuv_plugin.neurons.architectures import STANDARD
from rejuv_plugin.neurons.modules import modules_of
from rejuv_plugin.ops.selection import Tally
from rejuv_plugin.probe.attribute import attribute
from rejuv_plugin.probe.dialogue import Example
from rejuv_plugin.probe.entropy_scan import entropies, largest_gaps

POSITIONS, RATIO = 8, 0.01


def model_of(hidden: int, layers: int, seed: int) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=32 * hidden,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 64,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).eval().requires_grad_(False)


def find_neurons(base: Qwen2ForCausalLM, sft: Qwen2ForCausalLM, examples: list[Example]) -> None:
    shapes = {name: tuple(p.shape) for name, p in sft.named_parameters()}
    modules = modules_of(sft.config.to_dict(), shapes, "sft")
    tallies = {m.name: Tally(m.count, RATIO) for m in modules}
    scans = entropies(base, examples, "base"), entropies(sft, examples, "sft")
    for example, before, after in zip(examples, *scans, strict=True):
        kept = [example.targets[i] for i in largest_gaps(before, after, POSITIONS)]
        for name, scores in attribute(sft, STANDARD, modules, example.ids, kept).scores.items():
            tallies[name].add(scores)


def forward_and_backward(model: Qwen2ForCausalLM, examples: list[Example]) -> None:
    model.requires_grad_(True)
    for example in examples:
        ids = torch.tensor([example.ids])
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        model.zero_grad()
    model.requires_grad_(False)


def seconds(call, *arguments: object) -> float:
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def main() -> None:
    given = [int(a) for a in sys.argv[1:]]
    hidden, layers, tokens, number, repeats = given + [256, 8, 256, 8, 5][len(given) :]
    base, sft = model_of(hidden, layers, 0), model_of(hidden, layers, 1)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(32 * hidden, (number, tokens), generator=generator).tolist()
    examples = [Example(tuple(row), tuple(range(tokens // 2, tokens))) for row in ids]
    forward_and_backward(sft, examples[:1])
    find_neurons(base, sft, examples[:1])
    ratios = []
    for _ in range(repeats):
        plain, ours = seconds(forward_and_backward, sft, examples), seconds(find_neurons, base, sft, examples)
        ratios.append(ours / plain)
    print(
        f"hidden {hidden}, {layers} layers, {number} x {tokens} tokens: {statistics.median(ratios):.2f} x forward and "
        f"backward (median of {repeats} pairs, range {min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
