# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""tau2's retail tasks as verl's parquet: python make_tau2.py --out DATA [--split train test]

The split is tau2's own (74 tasks to train on, 40 to test on). A row holds the agent's instructions and the task's id;
the loop looks up the rest, and asks the customer for the first message.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
from tau2_domain import domain, system_prompt

AGENT = "tau2_retail"


def rows(split: str) -> list[dict[str, Any]]:
    """verl's rows of a split: "train", "test" or "base" (all)."""
    return [
        {
            "data_source": AGENT,
            "agent_name": AGENT,
            "prompt": [{"role": "system", "content": system_prompt()}],
            "ability": "agentic",
            "reward_model": {"style": "rule", "ground_truth": task},
            "extra_info": {"index": index, "split": split},
        }
        for index, task in enumerate(domain().splits[split])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", nargs="+", choices=sorted(domain().splits), default=["train", "test"])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for split in arguments.split:
        table = pd.DataFrame(rows(split))
        table.to_parquet(arguments.out / f"{split}.parquet")
        print(f"{arguments.out / split}.parquet: {len(table)} tasks")


if __name__ == "__main__":
    main()
