# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Make the base model and its SFT ladder: genuine HF directories, from a seed, in about two minutes on two cores.

python make_models.py --seed 0 --out out      ->  out/models/seed0-<hash>/{base,sft4,sft64}
"""

import argparse
import copy
import math
import random
import shutil
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from nav_task import base_texts, demonstrations
from nav_tokenizer import build_tokenizer, chat_ids
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from settings import Settings, models_dir
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer
from transformers.utils import logging as transformers_logging

# Token ids of an example, and how many of them are the prompt.
Example = tuple[list[int], int]

IGNORE = -100


def build_model(settings: Settings, tokenizer: Qwen2Tokenizer) -> Qwen2ForCausalLM:
    """A small Qwen2 with random weights."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        intermediate_size=settings.intermediate_size,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config).float()


def train_step(
    model: Qwen2ForCausalLM, optimizer: torch.optim.Optimizer, batch: list[Example], lr: float
) -> torch.Tensor:
    """One AdamW step on the answers' tokens. Returns the loss."""
    pad = model.config.pad_token_id
    longest = max(len(ids) for ids, _ in batch)
    tokens = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in batch])
    labels = torch.tensor([[IGNORE] * n + ids[n:] + [IGNORE] * (longest - len(ids)) for ids, n in batch])
    # Padding is on the right and attention is causal: no mask is needed.
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


def base_batches(settings: Settings, seed: int, tokenizer: Qwen2Tokenizer) -> Iterator[list[Example]]:
    """Endless pre-training batches of examples of about the same length."""
    texts, rng, size = base_texts(settings, seed), random.Random(f"batches-{seed}"), settings.base_batch
    ids = {character: tokenizer.encode(character)[0] for character in "0123456789?!:=wxvsudlr"}
    while True:
        block: list[Example] = []
        for prompt, answer in islice(texts, 16 * size):
            asked = chat_ids(tokenizer, prompt) if prompt[0].isdigit() else [ids[c] for c in prompt]
            block.append((asked + [ids[c] for c in answer] + [tokenizer.eos_token_id], len(asked)))
        block.sort(key=lambda example: len(example[0]))
        batches = [block[i : i + size] for i in range(0, len(block), size)]
        rng.shuffle(batches)
        yield from batches


def pretrain(settings: Settings, seed: int, tokenizer: Qwen2Tokenizer, bar: Progress) -> Qwen2ForCausalLM:
    """The base model: warm-up over 50 steps, then a cosine to 3 %."""
    torch.manual_seed(seed)
    model = build_model(settings, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    total, task = settings.base_steps, bar.add_task("base model", total=settings.base_steps, loss=float("nan"))
    for step, batch in enumerate(islice(base_batches(settings, seed, tokenizer), total)):
        decay = max(0.03, 0.5 * (1 + math.cos(math.pi * step / total)))
        loss = train_step(model, optimizer, batch, settings.base_lr * min(1.0, (step + 1) / 50) * decay)
        if step % 10 == 9:
            bar.update(task, advance=10, loss=float(loss))
    return model


def sft_ladder(
    base: Qwen2ForCausalLM, settings: Settings, seed: int, tokenizer: Qwen2Tokenizer, bar: Progress
) -> Iterator[tuple[int, Qwen2ForCausalLM]]:
    """SFT with a constant learning rate, the same data order for every rung. Yields (epochs, model) at each rung."""
    model = copy.deepcopy(base)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
    examples: list[Example] = []
    for problem, answer in demonstrations(settings, seed):
        prompt = chat_ids(tokenizer, problem)
        examples.append((prompt + tokenizer.encode(answer) + [tokenizer.eos_token_id], len(prompt)))
    rng, step = random.Random(f"order-{seed}"), 0
    task = bar.add_task("SFT ladder", total=settings.sft_ladder[-1], loss=float("nan"))
    for epoch in range(1, settings.sft_ladder[-1] + 1):
        rng.shuffle(examples)
        losses = []
        for start in range(0, len(examples), settings.sft_batch):
            step += 1
            batch = examples[start : start + settings.sft_batch]
            losses.append(train_step(model, optimizer, batch, settings.sft_lr * min(1.0, step / 10)))
        bar.update(task, advance=1, loss=float(torch.stack(losses).mean()))
        if epoch in settings.sft_ladder:
            yield epoch, model


def save(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, directory: Path) -> None:
    """A Hugging Face directory: safetensors, config, generation config, tokenizer with its chat template."""
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def make_models(settings: Settings, seed: int, target: Path) -> None:
    """Make everything beside `target` and rename it at the end, so that a killed run leaves nothing that looks done."""
    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(True)
    transformers_logging.disable_progress_bar()
    working = target.with_name(target.name + ".partial")
    shutil.rmtree(working, ignore_errors=True)
    tokenizer = build_tokenizer()
    columns = (TextColumn("{task.description:<12}"), BarColumn(), TextColumn("loss {task.fields[loss]:.3f}"))
    with Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()) as bar:
        base = pretrain(settings, seed, tokenizer, bar)
        save(base, tokenizer, working / "base")
        for epochs, model in sft_ladder(base, settings, seed, tokenizer, bar):
            save(model, tokenizer, working / f"sft{epochs}")
    working.rename(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    args = parser.parse_args()
    target = models_dir(args.out, args.seed, Settings())
    if target.exists():
        print(f"models: already made, in {target}")
        return
    started = time.monotonic()
    make_models(Settings(), args.seed, target)
    print(f"models: made in {time.monotonic() - started:.0f} s, in {target}")


if __name__ == "__main__":
    main()
