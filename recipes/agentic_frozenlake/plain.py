# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What checkpoints do on held-out lakes, and GRPO in plain PyTorch: seconds where verl needs minutes for the same sums.

python plain.py MODELS --seed 0 --arms over fusion moderate base --steps 25      (MODELS: from make_lake.py)
"""

import argparse
import json
import random
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from arms import ARMS
from grpo import advantages, policy_loss
from lake_game import ANSWER_TOKENS, Game
from lake_settings import LakeSettings
from lake_task import Transcript, eval_lakes, rl_lakes, shown_ids
from study import load, make_start
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class Episode(Transcript):
    """A game being played, and its tokens."""

    game: Game = field(kw_only=True)


@torch.no_grad()
def rollout(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, lakes: list[str], group: int, turns: int
) -> tuple[list[Episode], float]:
    """``group`` episodes on each lake, at temperature 1 from torch's global generator, and the mean entropy in nats.

    All views have the same length and all answers two tokens, so that running episodes stay side by side in one cache.
    """
    episodes = [
        Episode(shown_ids(tokenizer, game.shown, first=True), game=game)
        for lake in lakes
        for game in (Game(lake, turns) for _ in range(group))
    ]
    running, cache, entropies = episodes, DynamicCache(config=model.config), []
    feed = torch.tensor([episode.prompt for episode in running])
    while running:
        drawn = []
        for _ in range(ANSWER_TOKENS):
            log_p = model(input_ids=feed, past_key_values=cache, use_cache=True).logits[:, -1].log_softmax(-1)
            entropies.append(-(log_p.exp() * log_p).sum(-1))
            feed = torch.multinomial(log_p.exp(), 1)
            drawn.append(feed)
        keep, shown = [], []
        for row, (episode, ids) in enumerate(zip(running, torch.cat(drawn, 1).tolist(), strict=True)):
            if ids[0] == tokenizer.eos_token_id:
                ids = ids[:1]
            episode.add(ids, own=True)
            whole = ids[-1] == tokenizer.eos_token_id
            episode.game.answer(tokenizer.decode(ids[:-1] if whole else ids))
            if not episode.game.over:
                keep.append(row)
                shown.append(shown_ids(tokenizer, episode.game.shown, first=False))
                episode.add(shown[-1], own=False)
        running = [running[row] for row in keep]
        if running:
            cache.batch_select_indices(torch.tensor(keep))
            # The end of the answer is drawn but not fed yet.
            feed = torch.cat([feed[keep], torch.tensor(shown)], 1)
    return episodes, torch.cat(entropies).mean().item()


def measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: LakeSettings, group: int = 8) -> dict:
    """Success, groups with some but not all successes, entropy and turns, by data source."""
    found = {}
    for source, lakes in eval_lakes(settings).items():
        torch.manual_seed(0)
        episodes, entropy = rollout(model.eval(), tokenizer, lakes, group, settings.turns)
        rate = torch.tensor([e.game.reward for e in episodes]).view(-1, group).mean(1)
        found[source] = {
            "success": round(rate.mean().item(), 4),
            "gradient_share": round(((rate > 0) & (rate < 1)).float().mean().item(), 4),
            "entropy": round(entropy, 4),
            "turns": round(sum(e.game.turns for e in episodes) / len(episodes), 2),
        }
    return found


@dataclass(frozen=True)
class RL:
    """Settings of a run; the defaults are those of run_frozenlake_fsdp2.sh."""

    steps: int = 25
    lakes: int = 16
    group: int = 8
    lr: float = 3e-4


def train(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: LakeSettings, rl: RL, seed: int
) -> list[float]:
    """GRPO in place, one on-policy step a batch. Returns the mean reward of each step, before its update."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rl.lr, weight_decay=0.0)
    pool, order, curve = rl_lakes(settings, seed), random.Random(f"grpo-{seed}"), []
    torch.manual_seed(seed)
    for _ in range(rl.steps):
        episodes, _ = rollout(model.eval(), tokenizer, order.sample(pool, rl.lakes), rl.group, settings.turns)
        rewards = torch.tensor([e.game.reward for e in episodes]).view(rl.lakes, rl.group)
        curve.append(rewards.mean().item())
        prompt, answers = torch.tensor([e.prompt for e in episodes]), [e.answer for e in episodes]
        said = [e.said for e in episodes]
        loss = policy_loss(model.train(), prompt, answers, advantages(rewards).flatten(), said)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", default=["over", "fusion", "moderate", "base"], choices=list(ARMS))
    parser.add_argument("--steps", type=int, default=RL.steps, help="0: measure only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings, rl = LakeSettings(), RL(steps=args.steps)
    for name in args.arms:
        with tempfile.TemporaryDirectory() as directory:
            model, tokenizer = load(make_start(ARMS[name], args.models, args.seed, Path(directory))[0])
        row = {"arm": name, "seed": args.seed, "rl": asdict(rl), "before": measure(model, tokenizer, settings)}
        if args.steps:
            curve = train(model, tokenizer, settings, rl, args.seed)
            row |= {"curve": curve, "after": measure(model, tokenizer, settings)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
