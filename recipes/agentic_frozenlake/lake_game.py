# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""gymnasium's FrozenLake in words: what the model is shown, what its answer does, when it is over, what it earned.

What a move does is gymnasium's own answer, everywhere: the agent loop under verl, the plain loop and the demonstrations
play through this file.
"""

from collections import deque
from functools import cache

import gymnasium

# gymnasium's actions: 0 left, 1 down, 2 right, 3 up.
MOVES = "ldru"
# gymnasium's letters of what can be walked on; the start is ice like any other.
ICE = "SF"
WALL = "#"

# A move and the end of the answer: all that a turn may say.
ANSWER_TOKENS = 2

# A lake as text: gymnasium's rows, "SFFF/FHFH/FFFH/HFFG".
SEPARATOR = "/"


def make_env(lake: str, turns: int) -> gymnasium.Env:
    """gymnasium's environment of a lake, not slippery, cut off by its own time limit after ``turns`` moves."""
    return gymnasium.make(
        "FrozenLake-v1",
        desc=lake.split(SEPARATOR),
        is_slippery=False,
        max_episode_steps=turns,
        disable_env_checker=True,
    )


def view(lake: str, state: int) -> str:
    """What the environment says after a move: row, column, and for each of MOVES the tile it leads to.

    "12HdHu": in row 1, column 2, holes left and right. Ice is shown as the move onto it, beyond the edge is WALL.

    Args:
        lake: rows of a map, see SEPARATOR.
        state: gymnasium's observation, ``row * columns + column``.
    """
    rows = lake.split(SEPARATOR)
    row, column = divmod(state, len(rows[0]))
    around = ((row, column - 1), (row + 1, column), (row, column + 1), (row - 1, column))
    tiles = (rows[r][c] if 0 <= r < len(rows) and 0 <= c < len(rows[0]) else WALL for r, c in around)
    shown = (move if tile in ICE else tile for move, tile in zip(MOVES, tiles, strict=True))
    return f"{row}{column}{''.join(shown)}"


def opening(lake: str, state: int = 0) -> str:
    """What the model is shown first: the map, a line for each row, and the view, from gymnasium's start if not said."""
    return lake.replace(SEPARATOR, "\n") + "\n" + view(lake, state)


class Game:
    """One episode. ``over`` once gymnasium ends it (goal, hole, time limit), or once an answer is no move.

    Attributes:
        lake: the map, see SEPARATOR.
        shown: what the model is shown now.
        reward: sum of gymnasium's rewards so far: 1 when the goal is reached, else 0.
        over: whether nothing can be done any more.
        turns: answers given.
    """

    def __init__(self, lake: str, turns: int) -> None:
        self.lake, self._env = lake, make_env(lake, turns)
        self._env.reset(seed=0)
        self.shown, self.reward, self.over, self.turns = opening(lake), 0.0, False, 0

    def answer(self, text: str) -> None:
        """Make the move that ``text`` is: one letter of MOVES. Anything else moves nobody and ends the episode."""
        assert not self.over, "the episode is over"
        self.turns += 1
        if len(text) != 1 or text not in MOVES:
            self.over = True
            return
        state, reward, terminated, truncated, _ = self._env.step(MOVES.index(text))
        self.shown = view(self.lake, state)
        self.reward += float(reward)
        self.over = bool(terminated or truncated)


@cache
def steps_of(lake: str) -> tuple[tuple[tuple[int, float, bool], ...], ...]:
    """What each of the four moves does in each state, from gymnasium's own table: (next state, reward, over)."""
    table = make_env(lake, 1).unwrapped.P
    return tuple(tuple(tuple(table[state][move][0][1:]) for move in range(len(MOVES))) for state in sorted(table))


@cache
def best_moves(lake: str) -> tuple[str, ...]:
    """For each state the moves on a shortest way to the goal; empty where there is no way, or nothing left to do."""
    steps = steps_of(lake)
    came_from: dict[int, list[int]] = {}
    goal = None
    for state, moves in enumerate(steps):
        for following, reward, _ in moves:
            came_from.setdefault(following, []).append(state)
            goal = following if reward > 0 and following != state else goal
    assert goal is not None, "gymnasium's maps have a way to the goal"
    distance, queue = {goal: 0}, deque([goal])
    while queue:
        here = queue.popleft()
        for state in came_from[here]:
            if state not in distance:
                distance[state] = distance[here] + 1
                queue.append(state)
    return tuple(
        "".join(
            move
            for move, (following, *_) in zip(MOVES, moves, strict=True)
            if distance.get(following, len(steps)) == distance.get(state, -1) - 1
        )
        for state, moves in enumerate(steps)
    )
