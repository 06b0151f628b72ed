# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The starts of RL that are compared: a ladder of SFT depths, and what is done to its over-trained rung.

python depths.py --seed 2 --out out           prints where the models of a seed are
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from arms import Arm
from settings import Settings, models_dir

# Epochs over the same demonstrations. The base, the task and the rest of SFT are the quickstart's.
RUNGS = (1, 2, 4, 8, 16, 32, 64, 128)
SETTINGS = replace(Settings(), sft_ladder=RUNGS)

# The quickstart's over-trained and moderate checkpoints. The first is what is fused, reset and disturbed.
OVER, MODERATE = "sft64", "sft4"


@dataclass(frozen=True)
class Start(Arm):
    """A way to start RL. With ``noise``: from OVER with noise of the norm by which fusion would move it."""

    noise: bool = False


LADDER = {"base": Start("base", start="base")} | {
    f"sft{epochs}": Start(f"SFT, {epochs} epoch{'s' * (epochs > 1)}", alpha=1.0, start=f"sft{epochs}")
    for epochs in RUNGS
}
GRID = {f"alpha_{alpha}": Start(f"fusion, alpha {alpha}", alpha=alpha) for alpha in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)}
FUSION = "alpha_0.5"
CONTROLS = {
    "fusion_reset": Start("fusion + reset", reset={"ratio": 0.01}),
    "fusion_random": Start("fusion + random reset of equal size", reset={"ratio": 0.01, "select": "random"}),
    "noise": Start("noise as large as fusion's step", noise=True),
}
STARTS: dict[str, Start] = LADDER | GRID | CONTROLS
GROUPS = {"ladder": list(LADDER), "grid": list(GRID), "controls": list(CONTROLS)}


def start_of(name: str) -> Start:
    """By name; ``alpha_0.37`` is a fusion off the grid."""
    if name in STARTS:
        return STARTS[name]
    try:
        alpha = float(name.removeprefix("alpha_"))
    except ValueError:
        raise SystemExit(f"ARMS: expected {', '.join([*GROUPS, *STARTS])} or alpha_NUMBER, got {name}.") from None
    return Start(f"fusion, alpha {alpha:g}", alpha=alpha)


def wanted(names: list[str]) -> dict[str, Start]:
    """Starts by name; ``ladder``, ``grid`` and ``controls`` stand for groups."""
    return {name: start_of(name) for given in names for name in GROUPS.get(given, [given])}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--demonstrations", type=int, default=SETTINGS.sft_problems)
    args = parser.parse_args()
    print(models_dir(args.out, args.seed, replace(SETTINGS, sft_problems=args.demonstrations)))


if __name__ == "__main__":
    main()
