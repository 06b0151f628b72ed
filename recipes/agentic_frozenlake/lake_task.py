# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The lakes, who may see which, and the games that models are trained on.

Lakes are split by a stable hash of the map itself, so no lake is in two splits, whatever the seed:

    eval_in   lakes that nobody trains on                 sft   demonstrations
    eval_out  more holes than any lake trained on         rl    RL, and the base's games
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from gymnasium.envs.toy_text.frozen_lake import generate_random_map
from lake_game import MOVES, SEPARATOR, best_moves, opening, steps_of, view
from lake_settings import LakeSettings
from nav_task import stable_unit
from nav_tokenizer import chat_ids
from transformers import PreTrainedTokenizerBase

# What is shown and what is answered, turn by turn.
Turns = list[tuple[str, str]]


@cache
def split_lakes(settings: LakeSettings) -> dict[str, tuple[str, ...]]:
    """gymnasium's first random maps that are all different, by split, each in the order of its hash."""
    splits: dict[str, list[str]] = {"eval_in": [], "eval_out": [], "sft": [], "rl": []}
    found: set[str] = set()
    for seed in range(settings.lakes):
        lake = SEPARATOR.join(generate_random_map(settings.size, settings.frozen, seed))
        if lake in found:
            continue
        found.add(lake)
        holes, unit, share = lake.count("H"), stable_unit(lake), settings.share_eval
        if settings.out_holes[0] <= holes <= settings.out_holes[1]:
            splits["eval_out"].append(lake)
        elif settings.in_holes[0] <= holes <= settings.in_holes[1]:
            name = "eval_in" if unit < share else "sft" if unit < share + settings.share_sft else "rl"
            splits[name].append(lake)
    needed = {"eval_in": settings.eval_in, "eval_out": settings.eval_out, "sft": settings.sft_games}
    for name, count in (needed | {"rl": settings.train_prompts}).items():
        if len(splits[name]) < count:
            raise ValueError(f"split {name} has {len(splits[name])} lakes, the settings ask for {count}")
    return {name: tuple(sorted(lakes, key=stable_unit)) for name, lakes in splits.items()}


def play(lake: str, quality: float, turns: int, rng: random.Random, state: int = 0) -> Turns:
    """A game from ``state``: each move is a best one with probability ``quality``, else any of the four."""
    over, game = False, []
    while not over and len(game) < turns:
        best = best_moves(lake)[state] if rng.random() < quality else ""
        move = rng.choice(best or MOVES)
        game.append((view(lake, state) if game else opening(lake, state), move))
        state, _, over = steps_of(lake)[state][MOVES.index(move)]
    return game


def base_games(settings: LakeSettings, seed: int) -> Iterator[Turns]:
    """Endless games of mixed quality, on the lakes of RL, from any tile that has a way to the goal.

    Most are cut short: what is next to the player is the same after one turn as after eight, and a short game costs a
    fifth of a long one.
    """
    rng, pool = random.Random(f"base-{seed}"), split_lakes(settings)["rl"]
    while True:
        lake = rng.choice(pool)
        state = rng.choice([state for state, best in enumerate(best_moves(lake)) if best])
        yield play(lake, settings.base_quality, rng.choice(settings.base_turns), rng, state)


def demonstrations(settings: LakeSettings, seed: int) -> list[Turns]:
    """The SFT set: one game without a mistake for each of a few lakes."""
    rng = random.Random(f"sft-{seed}")
    return [
        play(lake, 1.0, settings.turns, rng) for lake in rng.sample(split_lakes(settings)["sft"], settings.sft_games)
    ]


def rl_lakes(settings: LakeSettings, seed: int) -> list[str]:
    """The lakes of RL, without repetition."""
    return random.Random(f"rl-{seed}").sample(split_lakes(settings)["rl"], settings.train_prompts)


def eval_lakes(settings: LakeSettings) -> dict[str, list[str]]:
    """Held-out lakes by verl data source: the same for every seed and every arm."""
    splits = split_lakes(settings)
    return {
        "lake_in": list(splits["eval_in"][: settings.eval_in]),
        "lake_out": list(splits["eval_out"][: settings.eval_out]),
    }


def shown_ids(tokenizer: PreTrainedTokenizerBase, shown: str, first: bool) -> list[int]:
    """Token ids of what the environment says, ready to be answered; after an answer, a newline ends that first."""
    return [*([] if first else tokenizer.encode("\n")), *chat_ids(tokenizer, shown)]


@dataclass
class Transcript:
    """The tokens of a game, as verl has them: what was shown first, and all after it.

    Attributes:
        prompt: token ids of the opening.
        answer: token ids of answers and views in turn.
        said: for each of ``answer``, 1 if the model said it, 0 if the environment did.
    """

    prompt: list[int]
    answer: list[int] = field(default_factory=list)
    said: list[int] = field(default_factory=list)

    def add(self, ids: list[int], own: bool) -> None:
        """Append what the model (``own``) or the environment said."""
        self.answer += ids
        self.said += [int(own)] * len(ids)


def transcribe(tokenizer: PreTrainedTokenizerBase, turns: Turns) -> Transcript:
    """The tokens of a game, up to the end of its last answer."""
    transcript = Transcript(shown_ids(tokenizer, turns[0][0], first=True))
    for index, (shown, move) in enumerate(turns):
        if index:
            transcript.add(shown_ids(tokenizer, shown, first=False), own=False)
        transcript.add([*tokenizer.encode(move), tokenizer.eos_token_id], own=True)
    return transcript
