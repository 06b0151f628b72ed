# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A base model of 100 000 parameters and sums to fine-tune it on: the recipe's scripts at work on a CPU.

python make_tiny.py --out out/tiny    ->  base/, sft.jsonl, rl.jsonl, held_out.jsonl

The base has seen the answer's form, and is right about some sums: groups of answers are neither all right nor all
wrong, without which DAPO would look for such groups for ever.
"""

import argparse
import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "quickstart"))

from make_models import build_model, save, train_step
from nav_tokenizer import build_tokenizer, chat_ids
from settings import Settings

Sum = tuple[int, int]

# Two heads of 32: the smallest that vLLM's CPU kernels take.
SIZE = replace(Settings(), hidden_size=64, heads=2, layers=2, intermediate_size=128)
STEPS = 300
BATCH = 32
LR = 3e-3
# Of the base's examples; the others have any digit for an answer.
RIGHT = 0.6


def asked(pair: Sum) -> str:
    return f"{pair[0]}+{pair[1]}=?"


def answered(pair: Sum, answer: int) -> str:
    return f"{pair[0]}+{pair[1]}=\\boxed{{{answer}}}"


def make_base(seed: int, directory: Path, sums: list[Sum]) -> None:
    rng, tokenizer = random.Random(seed), build_tokenizer()
    torch.manual_seed(seed)
    model = build_model(SIZE, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(STEPS):
        batch = []
        for pair in rng.choices(sums, k=BATCH):
            answer = sum(pair) if rng.random() < RIGHT else rng.randrange(10)
            prompt = chat_ids(tokenizer, asked(pair))
            batch.append(([*prompt, *tokenizer.encode(answered(pair, answer)), tokenizer.eos_token_id], len(prompt)))
        loss = train_step(model, optimizer, batch, LR)
    save(model, tokenizer, directory)
    print(f"{directory}: {sum(p.numel() for p in model.parameters())} parameters, loss {float(loss):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sums = [(a, b) for a in range(10) for b in range(10) if a + b < 10]
    random.Random(options.seed).shuffle(sums)
    make_base(options.seed, options.out / "base", sums)
    for name, some in {"sft": sums[:32], "rl": sums[:47], "held_out": sums[47:]}.items():
        rows = [{"question": asked(pair), "answer": answered(pair, sum(pair))} for pair in some]
        (options.out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
