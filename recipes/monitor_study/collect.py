# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A row for each run: where it began and ended, and what its monitors said at each step. Kept in git, so that tables
can be made again and a new level of a rule be tried without running anything.

python collect.py out/runs --to out/rows              (of monitored.py: a directory for each run)
python collect.py out/results-verl-steps40-sft64/rows --to rows       (of ../sft_ladder with RL=verl: rows and runs/)
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from study import read_seeds, rounded

from rejuv_plugin.monitors.history import PLASTICITY, read_steps
from rejuv_plugin.monitors.rules import RULES

SIGNALS = (
    *("actor/plasticity/entropy", "actor/plasticity/top1_mass", "actor/plasticity/entropy_drop"),
    *("actor/plasticity/grad_norm", "actor/plasticity/update_ratio"),
    *("actor/plasticity/drift_start", "actor/plasticity/drift_base"),
    *("training/plasticity/pass_rate", "training/plasticity/zero_advantage_groups"),
)
KEPT = sorted({*SIGNALS, *(name for rule in RULES for name in rule.reads)})

Row = dict[str, Any]


def runs_of(root: Path) -> Iterator[tuple[Row, Path]]:
    """What is known of each run that ended, and the directory with its ``plasticity.jsonl``, where monitors were on."""
    for path in sorted(root.glob("seed*-*/result.json")):
        yield json.loads(path.read_text()), path.parent
    for row in read_seeds(root):
        for directory in root.glob(f"runs/seed{row['seed']}-*/{row['arm']}/checkpoints"):
            if (directory / PLASTICITY).exists():
                yield row, directory


def row_of(known: Row, directory: Path) -> Row:
    """Accuracies of the ends, and for each kept metric its values by step: null where a step has none."""
    # Step 0 is validation before training.
    steps = [each for each in read_steps(directory / PLASTICITY, str(directory)) if each["step"] > 0]
    metrics = {name: [each["metrics"].get(name) for each in steps] for name in KEPT}
    ends = {
        when: {where: {"pass_at_1": level["pass_at_1"]} for where, level in known[when].items()}
        for when in ("before", "after")
    }
    return {
        **{name: known[name] for name in ("arm", "seed", "weights")},
        **ends,
        "steps": [each["step"] for each in steps],
        # Of probes, which are made every ten steps only if at all.
        "metrics": {name: values for name, values in metrics.items() if any(value is not None for value in values)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--to", type=Path, required=True, help="directory: seed<N>.jsonl, each written anew")
    args = parser.parse_args()
    lines: dict[int, list[str]] = {}
    for known, directory in runs_of(args.runs):
        lines.setdefault(known["seed"], []).append(json.dumps(rounded(row_of(known, directory))))
    if not lines:
        parser.error(f"{args.runs}: expected runs of this study or of ../sft_ladder, got none. Fix: run.sh makes them.")
    args.to.mkdir(parents=True, exist_ok=True)
    for seed, of_seed in lines.items():
        (args.to / f"seed{seed}.jsonl").write_text("\n".join(sorted(of_seed)) + "\n")
    print(f"{sum(map(len, lines.values()))} runs, in {args.to}")


if __name__ == "__main__":
    main()
