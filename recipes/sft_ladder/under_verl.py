# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A start of RL under the real verl: the quickstart's command, and its metrics as a row of the study."""

import tempfile
from pathlib import Path

from depths import Start
from grpo import RL
from settings import HERE, Settings
from study import Make, Row, setup_of
from summarise import read_arm
from watch import watch

from rejuv_plugin.neurons.reset_set import shares


def run_under_verl(
    name: str, start: Start, seed: int, models: Path, rl: RL, settings: Settings, *, make: Make, runs: Path
) -> Row:
    """As ``run_arm``; what verl wrote stays in ``runs``. No entropy in the row: verl's is of the training prompts."""
    with tempfile.TemporaryDirectory() as directory:
        path, found = make(start, models, seed, Path(directory))
        told = {"ARM": name, "START": path, "SEED": seed, "MODELS": models, "STEPS": rl.steps, "RUN_DIR": runs}
        sizes = {"TRAIN_BATCH": rl.prompts, "GROUP": rl.group, "LR": rl.lr, "MAX_RESPONSE": rl.max_response}
        command = ["env", *(f"{key}={value}" for key, value in (told | sizes).items())]
        command += ["bash", str(HERE / "run_nav_fsdp2.sh")]
        code = watch(name, rl.steps, runs / name, command, lines=True)
    if code:
        raise SystemExit(code)
    result = read_arm(runs / name)
    ends = {
        when: {
            source: {"pass_at_1": getattr(level, when), "gradient_share": getattr(share, when)}
            for source, level, share in (
                ("nav_in", result.accuracy_in, result.gradient_share_in),
                ("nav_out", result.accuracy_out, result.gradient_share_out),
            )
        }
        for when in ("before", "after")
    }
    return {
        "arm": name,
        "seed": seed,
        "setup": setup_of(start, rl, settings),
        "share_reset": shares(found, dict.fromkeys(found.modules, "all"))["all"] if found else 0.0,
        **ends,
        "curve": result.reward_curve,
        "seconds": result.seconds,
    }
