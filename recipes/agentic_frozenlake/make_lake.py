# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Make the base model, its SFT ladder and verl's data files, from a seed: genuine HF directories.

python make_lake.py --seed 0 --out out      ->  out/models/seed0-<hash>/{base,sft4,sft64,data}
"""

import argparse
import copy
import json
import math
import random
import shutil
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd
import torch
from grpo import policy_loss
from lake_game import best_moves, opening
from lake_settings import HERE, LakeSettings
from lake_task import Transcript, base_games, demonstrations, eval_lakes, rl_lakes, transcribe
from make_models import build_model, save
from nav_tokenizer import build_tokenizer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from settings import models_dir
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer
from transformers.utils import logging as transformers_logging


def learn(
    model: Qwen2ForCausalLM, optimizer: torch.optim.Optimizer, games: list[Transcript], lr: float
) -> torch.Tensor:
    """One AdamW step on the moves of some games. Returns the loss, a mean over the model's own tokens."""
    prompt, ones = torch.tensor([game.prompt for game in games]), torch.ones(len(games))
    loss = policy_loss(model, prompt, [game.answer for game in games], ones, [game.said for game in games])
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


def base_batches(settings: LakeSettings, seed: int, tokenizer: Qwen2Tokenizer) -> Iterator[list[Transcript]]:
    """Endless pre-training batches of games of about the same length."""
    games, rng, size = base_games(settings, seed), random.Random(f"batches-{seed}"), settings.base_batch
    while True:
        block = [transcribe(tokenizer, turns) for turns in islice(games, 16 * size)]
        block.sort(key=lambda game: len(game.answer))
        batches = [block[i : i + size] for i in range(0, len(block), size)]
        rng.shuffle(batches)
        yield from batches


def pretrain(settings: LakeSettings, seed: int, tokenizer: Qwen2Tokenizer, bar: Progress) -> Qwen2ForCausalLM:
    """The base model: warm-up over 50 steps, then a cosine to 3 %."""
    torch.manual_seed(seed)
    model = build_model(settings, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    total, task = settings.base_steps, bar.add_task("base model", total=settings.base_steps, loss=float("nan"))
    for step, batch in enumerate(islice(base_batches(settings, seed, tokenizer), total)):
        decay = max(0.03, 0.5 * (1 + math.cos(math.pi * step / total)))
        loss = learn(model, optimizer, batch, settings.base_lr * min(1.0, (step + 1) / 50) * decay)
        if step % 10 == 9:
            bar.update(task, advance=10, loss=float(loss))
    return model


def sft_ladder(
    base: Qwen2ForCausalLM, settings: LakeSettings, seed: int, tokenizer: Qwen2Tokenizer, bar: Progress
) -> Iterator[tuple[int, Qwen2ForCausalLM]]:
    """SFT with a constant learning rate. Yields (epochs, model) at each rung."""
    model = copy.deepcopy(base)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
    games = [transcribe(tokenizer, turns) for turns in demonstrations(settings, seed)]
    rng, step = random.Random(f"order-{seed}"), 0
    task = bar.add_task("SFT ladder", total=settings.sft_ladder[-1], loss=float("nan"))
    for epoch in range(1, settings.sft_ladder[-1] + 1):
        rng.shuffle(games)
        for start in range(0, len(games), settings.sft_batch):
            step += 1
            batch = games[start : start + settings.sft_batch]
            loss = learn(model, optimizer, batch, settings.sft_lr * min(1.0, step / 10))
        bar.update(task, advance=1, loss=float(loss))
        if epoch in settings.sft_ladder:
            yield epoch, model


def rows(lakes: list[str], data_source: str) -> pd.DataFrame:
    """verl's format. The prompt is the first view; the agent loop gets the lake from the ground truth."""
    return pd.DataFrame(
        {
            "data_source": data_source,
            "agent_name": "frozenlake",
            "prompt": [[{"role": "user", "content": opening(lake)}] for lake in lakes],
            "ability": "navigation",
            "reward_model": [{"style": "rule", "ground_truth": lake} for lake in lakes],
            "extra_info": [{"index": index} for index in range(len(lakes))],
        }
    )


def make_data(settings: LakeSettings, seed: int, directory: Path) -> None:
    """verl's parquet files, and the probe set of the monitors: right first moves on lakes that nobody trains on."""
    directory.mkdir(parents=True)
    rows(rl_lakes(settings, seed), "lake_train").to_parquet(directory / "train.parquet")
    for name, lakes in eval_lakes(settings).items():
        rows(lakes, name).to_parquet(directory / f"{name.replace('lake', 'val')}.parquet")
    probe = [{"prompt": opening(lake), "response": best_moves(lake)[0][0]} for lake in eval_lakes(settings)["lake_in"]]
    (directory / "probe.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in probe))


def make_all(settings: LakeSettings, seed: int, target: Path) -> None:
    """Make everything beside ``target`` and rename it at the end: a killed run leaves nothing that looks done."""
    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(True)
    transformers_logging.disable_progress_bar()
    working = target.with_name(target.name + ".partial")
    shutil.rmtree(working, ignore_errors=True)
    make_data(settings, seed, working / "data")
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
    parser.add_argument("--out", type=Path, default=HERE / "out")
    args = parser.parse_args()
    target = models_dir(args.out, args.seed, LakeSettings())
    if target.exists():
        print(f"models: already made, in {target}")
        return
    started = time.monotonic()
    make_all(LakeSettings(), args.seed, target)
    print(f"models: made in {time.monotonic() - started:.0f} s, in {target}")


if __name__ == "__main__":
    main()
