# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What finding the neurons costs: python tests/benchmarks/reset_cost.py [hidden] [layers] [tokens] [examples] [repeats]

Both passes and the tally, on loaded random Qwen2 models, against one forward and backward pass of plain transformers
with parameter gradients over the same tokens. Time: alternating in one process, the median of the paired ratios of CPU
seconds. Memory: the peak resident size of a process that does one or the other, model included, libraries not.
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rejuv_plugin.config import ResetConfig
from rejuv_plugin.neurons.architectures import STANDARD
from rejuv_plugin.neurons.modules import modules_of
from rejuv_plugin.probe.dialogue import Example
from rejuv_plugin.probe.passes import scan, score
from rejuv_plugin.probe.usage import peak_memory


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
    """What `probe.measure.measure` does with loaded models."""
    second_pass(scan(base, examples, "base"), sft, examples)


def second_pass(base: list[torch.Tensor], sft: Qwen2ForCausalLM, examples: list[Example]) -> None:
    shapes = {name: tuple(p.shape) for name, p in sft.named_parameters()}
    modules = modules_of(sft.config.to_dict(), shapes, "sft")
    settings = ResetConfig(ratio=0.01, calibration="in memory")
    score(sft, STANDARD, modules, modules, examples, base, settings, "sft")


def forward_and_backward(model: Qwen2ForCausalLM, examples: list[Example]) -> None:
    model.requires_grad_(True)
    for example in examples:
        ids = torch.tensor([example.ids])
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        model.zero_grad()
    model.requires_grad_(False)


def examples_of(hidden: int, tokens: int, number: int) -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(32 * hidden, (number, tokens), generator=generator).tolist()
    return [Example(tuple(row), tuple(range(tokens // 2, tokens))) for row in ids]


def seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def _peak(which: str, hidden: int, layers: int, tokens: int, number: int, result: Any) -> None:
    examples, before = examples_of(hidden, tokens, number), peak_memory(torch.device("cpu"))
    if which == "plain":
        forward_and_backward(model_of(hidden, layers, 1), examples)
    else:
        # One model at a time, as `probe.measure` has them.
        scanned = scan(model_of(hidden, layers, 0), examples, "base")
        second_pass(scanned, model_of(hidden, layers, 1), examples)
    result.send((peak_memory(torch.device("cpu")) - before) / 2**20)


def peak_mib(which: str, *sizes: int) -> float:
    """Peak resident size of a fresh process above what it had after its imports."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_peak, args=(which, *sizes, theirs))
    process.start()
    # Ours alone keeps it open: a child that dies ends the wait.
    theirs.close()
    found = ours.recv()
    process.join()
    return found


def main() -> None:
    given = [int(a) for a in sys.argv[1:]]
    hidden, layers, tokens, number, repeats = given + [256, 8, 256, 8, 5][len(given) :]
    examples = examples_of(hidden, tokens, number)
    base, sft = model_of(hidden, layers, 0), model_of(hidden, layers, 1)
    forward_and_backward(sft, examples[:1])
    find_neurons(base, sft, examples[:1])
    ratios = []
    for _ in range(repeats):
        plain = seconds(lambda: forward_and_backward(sft, examples))
        ours = seconds(lambda: find_neurons(base, sft, examples))
        ratios.append(ours / plain)
    plain_mib, our_mib = (peak_mib(which, hidden, layers, tokens, number) for which in ("plain", "ours"))
    print(
        f"hidden {hidden}, {layers} layers, {number} x {tokens} tokens, {torch.get_num_threads()} threads\n"
        f"time   {statistics.median(ratios):.2f} x forward and backward (median of {repeats} pairs, range "
        f"{min(ratios):.2f} to {max(ratios):.2f})\n"
        f"memory {our_mib / plain_mib:.2f} x forward and backward ({our_mib:.0f} and {plain_mib:.0f} MiB)"
    )


if __name__ == "__main__":
    main()
