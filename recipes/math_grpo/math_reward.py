# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The paper's reward for math: +1 if the boxed answer is right by Math-Verify, else -1. verl loads it by its path.

verl's own Math-Verify scorer looks at every expression of an answer, so here it is shown the last box alone. It runs in
processes of its own, where Math-Verify's time limit works, and without Math-Verify it would score 0: hence the import.
"""

from typing import Any

import math_verify  # noqa: F401
from verl.utils.reward_score import math_verify as scorer
from verl.utils.reward_score.math_reward import last_boxed_only_string

# Seconds, the start of verl's processes included: on a busy machine that takes longer than the 30 that verl gives, and
# the first right answers of a run would be wrong ones. Math-Verify itself stops after 5 for parsing and for comparing.
TIMEOUT = 300.0


def is_right(box: str, ground_truth: str) -> bool:
    """What Math-Verify says. verl's pool, once one of its processes was killed, would call every answer wrong from then
    on, so it is replaced: by one thread of those that saw it break, while each asks again."""
    pool = scorer._get_pool()
    right = scorer.compute_score(box, ground_truth, timeout=TIMEOUT) > 0
    if not pool._broken:
        return right
    with scorer._pool_lock:
        if scorer._pool is pool:
            scorer._pool = None
    return scorer.compute_score(box, ground_truth, timeout=TIMEOUT) > 0


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **kwargs: Any
) -> dict[str, float]:
    """verl's reward interface. ``acc`` is 1 or 0, and is what validation and DAPO's filter read."""
    box = last_boxed_only_string(solution_str)
    right = box is not None and is_right(box, ground_truth)
    return {"score": 1.0 if right else -1.0, "acc": float(right), "boxed": float(box is not None)}
