# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The reward: 1 if the moves lead from the start cell to the goal cell, else 0.

verl loads this file by its path (`reward.custom_reward_function.path`), also in Ray workers, so it imports nothing
from the recipe. It is the only definition of "correct" here: `nav_task.py` and `evaluate.py` use it too.
"""

from typing import Any

MOVES: dict[str, tuple[int, int]] = {"u": (0, 1), "d": (0, -1), "l": (-1, 0), "r": (1, 0)}

DATA_SOURCES = ("nav_train", "nav_in", "nav_out")


def is_solution(answer: str, problem: str) -> bool:
    """Whether `answer`, a string of moves, solves `problem`, written "ax ay:bx by" without the spaces ("14:57")."""
    if not answer or any(move not in MOVES for move in answer):
        return False
    x, y = int(problem[0]), int(problem[1])
    for move in answer:
        dx, dy = MOVES[move]
        x, y = x + dx, y + dy
    return (x, y) == (int(problem[3]), int(problem[4]))


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **kwargs: Any
) -> dict[str, float]:
    """verl's reward interface. `acc` makes verl report validation under `val-core/<data_source>/acc/...`."""
    if data_source not in DATA_SOURCES:
        raise ValueError(f"data_source {data_source!r} is not one of {DATA_SOURCES}: see make_data.py")
    score = float(is_solution(solution_str.strip(), ground_truth))
    return {"score": score, "acc": score}
