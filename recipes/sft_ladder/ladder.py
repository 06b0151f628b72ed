# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Models of one seed with their SFT ladder, then RL from each start; one row for each in ROWS/seed<N>.jsonl.

python ladder.py --seed 2 --arms ladder grid controls --out out --rows out/rows              (plain GRPO)
python ladder.py --seed 2 --arms ladder --rl verl --out out --rows out/rows-verl             (the real verl job)
"""

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from depths import OVER, SETTINGS, Start, wanted
from grpo import RL
from make_data import make_data
from make_models import make_models
from nav_task import demonstrations
from settings import Settings, models_dir
from study import load, make_start, run_arm, run_missing
from transformers.utils import logging as transformers_logging

from rejuv_plugin.neurons.reset_set import ResetSet


def make_ladder(settings: Settings, seed: int, out: Path) -> Path:
    """The directory with base, the rungs and the data of a seed, made where it is not there yet."""
    models = models_dir(out, seed, settings)
    if not models.exists():
        make_models(settings, seed, models)
    sft_set = models / "data" / "demonstrations.jsonl"
    if not sft_set.exists():
        make_data(settings, seed, models / "data")
        pairs = [{"prompt": prompt, "response": answer} for prompt, answer in demonstrations(settings, seed)]
        sft_set.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return models


def make_noisy(start: Start, models: Path, seed: int, directory: Path) -> Path:
    """OVER plus Gaussian noise, in each tensor of the norm by which fusion with the start's alpha would move it."""
    (model, tokenizer), (base, _) = load(models / OVER), load(models / "base")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p, other in zip(model.parameters(), base.parameters(), strict=True):
            noise = torch.randn(p.shape, generator=generator)
            p += noise * ((1 - start.alpha) * (other - p).norm() / noise.norm())
    model.save_pretrained(directory / "start")
    tokenizer.save_pretrained(directory / "start")
    return directory / "start"


def make(start: Start, models: Path, seed: int, directory: Path) -> tuple[Path, ResetSet | None]:
    """The checkpoint that RL starts from, and the neurons that were reset."""
    if start.noise:
        return make_noisy(start, models, seed, directory), None
    return make_start(start, models, seed, directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--arms", nargs="*", default=[], help="none: only the models")
    parser.add_argument("--out", type=Path, required=True, help="where models are made, or found")
    parser.add_argument("--rows", type=Path, required=True, help="directory; rows that it has are not run again")
    parser.add_argument("--rl", choices=("plain", "verl"), default="plain")
    parser.add_argument("--steps", type=int, default=RL.steps)
    parser.add_argument("--demonstrations", type=int, default=SETTINGS.sft_problems, help="size of the SFT set")
    args = parser.parse_args()
    starts, settings = wanted(args.arms), replace(SETTINGS, sft_problems=args.demonstrations)
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    models = make_ladder(settings, args.seed, args.out)
    args.rows.mkdir(parents=True, exist_ok=True)
    if args.rl == "verl":
        # Here: without it the environment lacks what follows verl's processes.
        from under_verl import run_under_verl

        run = partial(run_under_verl, make=make, runs=args.rows / "runs" / models.name)
    else:
        run = partial(run_arm, make=make)
    run_missing(starts, args.seed, models, args.rows / f"seed{args.seed}.jsonl", RL(steps=args.steps), settings, run)


if __name__ == "__main__":
    main()
