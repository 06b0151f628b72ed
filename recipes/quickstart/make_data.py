# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Write verl's parquet files, RL prompts and the two validation sets, and the probe set of the monitors.

python make_data.py --seed 0 --out out      ->  out/models/seed0-<hash>/data/{train,val_in,val_out}.parquet, probe.jsonl
"""

import argparse
import json
import random
from pathlib import Path

import pandas as pd
from nav_task import eval_problems, rl_prompts, write_route
from settings import Settings, models_dir


def rows(problems: list[str], data_source: str) -> pd.DataFrame:
    """verl's format. The ground truth is the problem itself: the reward walks the answer."""
    return pd.DataFrame(
        {
            "data_source": data_source,
            "prompt": [[{"role": "user", "content": problem}] for problem in problems],
            "ability": "navigation",
            "reward_model": [{"style": "rule", "ground_truth": problem} for problem in problems],
            "extra_info": [{"index": index} for index in range(len(problems))],
        }
    )


def make_data(settings: Settings, seed: int, directory: Path) -> None:
    """Four files. Those of held-out problems do not depend on the seed."""
    directory.mkdir(parents=True, exist_ok=True)
    held_out = eval_problems(settings)
    rows(rl_prompts(settings, seed), "nav_train").to_parquet(directory / "train.parquet")
    rows(held_out["nav_in"], "nav_in").to_parquet(directory / "val_in.parquet")
    rows(held_out["nav_out"], "nav_out").to_parquet(directory / "val_out.parquet")
    route = random.Random("probe")
    probe = [{"prompt": problem, "response": write_route(problem, "mixed", route)} for problem in held_out["nav_in"]]
    (directory / "probe.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in probe))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    args = parser.parse_args()
    directory = models_dir(args.out, args.seed, Settings()) / "data"
    make_data(Settings(), args.seed, directory)
    print(f"data: {', '.join(sorted(path.name for path in directory.iterdir()))} in {directory}")


if __name__ == "__main__":
    main()
