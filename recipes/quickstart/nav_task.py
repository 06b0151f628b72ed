# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The task: walk on a 10 x 10 grid from one cell to another. "14:57" asks for a way from (1, 4) to (5, 7).

Many answers are right, so demonstrations carry entropy that only memorising removes: that is what over-training does.
Problems are split by a stable hash, so no problem is in two splits, whatever the seed:

    eval_in   in-distribution problems nobody trains on      sft   demonstrations
    eval_out  longer distances nobody trains on              rl    prompts of RL
"""

import hashlib
import random
from collections.abc import Iterator
from functools import cache
from itertools import product

from reward import MOVES, is_solution
from settings import Settings

INVERSE = {"u": "d", "d": "u", "l": "r", "r": "l"}
STYLES = ("horizontal_first", "vertical_first", "mixed", "detour", "sloppy")


def distance(problem: str) -> int:
    """Length of the shortest answer."""
    return abs(int(problem[0]) - int(problem[3])) + abs(int(problem[1]) - int(problem[4]))


def stable_unit(text: str) -> float:
    """A number in [0, 1) that depends on the text alone: same on every machine, Python version and seed."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


@cache
def split_problems(settings: Settings) -> dict[str, tuple[str, ...]]:
    """All problems by split, each in the order of its hash. `base` are the problems pre-training may use."""
    splits: dict[str, list[str]] = {"eval_in": [], "eval_out": [], "sft": [], "rl": [], "base": []}
    for ax, ay, bx, by in product("0123456789", repeat=4):
        problem = f"{ax}{ay}:{bx}{by}"
        steps, unit = distance(problem), stable_unit(problem)
        name = ""
        if settings.out_min <= steps <= settings.out_max:
            name = "eval_out"
        elif settings.in_min <= steps <= settings.in_max:
            share = settings.share_eval
            name = "eval_in" if unit < share else "sft" if unit < share + settings.share_sft else "rl"
        if name:
            splits[name].append(problem)
        if 1 <= steps <= settings.in_max and name != "eval_in":
            splits["base"].append(problem)
    ordered = {name: tuple(sorted(problems, key=stable_unit)) for name, problems in splits.items()}
    check_splits(ordered, settings)
    return ordered


def check_splits(splits: dict[str, tuple[str, ...]], settings: Settings) -> None:
    """The promises the recipe rests on."""
    disjoint = ["eval_in", "eval_out", "sft", "rl"]
    assert sum(len(splits[name]) for name in disjoint) == len(set().union(*(splits[name] for name in disjoint)))
    held_out = {*splits["eval_in"], *splits["eval_out"]}
    assert held_out.isdisjoint(splits["base"]), "pre-training would see evaluation problems"
    assert all(distance(problem) <= settings.in_max for problem in splits["base"])
    asked = {"eval_in": settings.eval_in, "eval_out": settings.eval_out, "sft": settings.sft_problems}
    for name, needed in asked.items():
        if len(splits[name]) < needed:
            raise ValueError(f"split {name} has {len(splits[name])} problems, the settings ask for {needed}")


def write_route(problem: str, style: str, rng: random.Random) -> str:
    """An answer in one of STYLES. All but "sloppy" are right."""
    ax, ay, bx, by = (int(problem[i]) for i in (0, 1, 3, 4))
    horizontal = list(("r" if bx > ax else "l") * abs(bx - ax))
    vertical = list(("u" if by > ay else "d") * abs(by - ay))
    if style == "horizontal_first":
        return "".join(horizontal + vertical)
    if style == "vertical_first":
        return "".join(vertical + horizontal)
    moves = horizontal + vertical
    if style == "detour":
        for _ in range(rng.randint(1, 2)):
            there = rng.choice("udlr")
            moves += [there, INVERSE[there]]
    rng.shuffle(moves)
    if style == "sloppy":
        place, kind = rng.randrange(len(moves)), rng.random()
        if kind < 0.4 and len(moves) > 1:
            moves.pop(place)
        elif kind < 0.8:
            moves.insert(place, moves[place])
        else:
            moves[place] = rng.choice("udlr")
    return "".join(moves)


def base_texts(settings: Settings, seed: int) -> Iterator[tuple[str, str]]:
    """Endless pre-training pairs (prompt, answer): routes in every style, and four side tasks.

    A prompt that is a bare problem stands for the problem in chat format. There are few of them, all with a mistake, so
    that the base knows the format and SFT has something to teach.
    """
    splits = split_problems(settings)
    pool, held_out = splits["base"], {*splits["eval_in"], *splits["eval_out"]}
    rng = random.Random(f"base-{seed}")
    while True:
        problem = rng.choice(pool)
        if rng.random() < settings.base_route_share:
            if rng.random() < settings.base_chat_share:
                yield problem, write_route(problem, "sloppy", rng)
            else:
                style = rng.choices(STYLES, settings.base_styles)[0]
                yield f"?{problem}!", write_route(problem, style, rng)
            continue
        kind = rng.choice("wxvs")
        moves = write_route(problem, "mixed", rng)
        moves = moves[: rng.randint(1, len(moves))]
        if kind == "w":
            x, y = int(problem[0]), int(problem[1])
            for move in moves:
                x, y = x + MOVES[move][0], y + MOVES[move][1]
            if f"{problem[:2]}:{x}{y}" not in held_out:
                yield f"w{problem[:2]}{moves}=", f"{x}{y}"
        elif kind == "x":
            ax, ay, bx, by = (int(problem[i]) for i in (0, 1, 3, 4))
            yield f"x{problem}=", f"{abs(ax - bx)}{abs(ay - by)}"
        elif kind == "v":
            yield f"v{moves}=", "".join(INVERSE[move] for move in reversed(moves))
        else:
            yield f"s{moves}=", "".join(sorted(moves))


def demonstrations(settings: Settings, seed: int) -> list[tuple[str, str]]:
    """The SFT set: one right, shortest answer for each of a few problems."""
    rng = random.Random(f"sft-{seed}")
    problems = rng.sample(split_problems(settings)["sft"], settings.sft_problems)
    pairs = [(problem, write_route(problem, "mixed", rng)) for problem in problems]
    assert all(is_solution(answer, problem) for problem, answer in pairs)
    return pairs


def rl_prompts(settings: Settings, seed: int) -> list[str]:
    """The prompts of RL, without repetition."""
    return random.Random(f"rl-{seed}").sample(split_problems(settings)["rl"], settings.train_prompts)


def eval_problems(settings: Settings) -> dict[str, list[str]]:
    """Held-out problems by verl data source: the same for every seed and every arm."""
    splits = split_problems(settings)
    inside, outside = splits["eval_in"][: settings.eval_in], splits["eval_out"][: settings.eval_out]
    return {"nav_in": list(inside), "nav_out": list(outside)}
