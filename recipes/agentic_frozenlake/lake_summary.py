# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Read what the arms of some seeds left behind; print the table, write result.json and result.md.

python lake_summary.py out/runs/seed2-<hash>-steps25 [more seeds ...] --output out

Where each number comes from: success and turns, verl's own validation at step 0 and at the last step; groups with a
gradient, the dumps of the same validation; token entropy, verl's `actor/entropy` of the first and the last step;
seconds, watch.py.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analyse import paired
from lake_settings import LakeSettings
from summarise import ARMS, LABELS, Change, accuracy, gradient_share, steps_of_run

SOURCES = {"lake_in": "in distribution", "lake_out": "out of distribution"}


@dataclass(frozen=True)
class LakeResult:
    """One arm of one seed. Shares in [0, 1], entropy in nats, answers of an episode."""

    arm: str
    label: str
    seed: int
    steps: int
    success: Mapping[str, Change]
    groups_with_a_gradient: Mapping[str, Change]
    turns: Change
    token_entropy: Change
    seconds: float


def source_of(row: Mapping[str, Any]) -> str:
    """The data source of a line of verl's dumps, which does not name it."""
    return "lake_out" if row["gts"].count("H") > LakeSettings().in_holes[1] else "lake_in"


def read_arm(directory: Path) -> LakeResult:
    """Everything about one finished arm."""
    run, by_step = json.loads((directory / "run.json").read_text()), steps_of_run(directory)
    first, last = by_step[0], by_step[max(by_step)]
    shares = [gradient_share(directory / "validation" / f"{step}.jsonl", source_of) for step in (0, max(by_step))]
    fused = f"rejuvenated (alpha {run['settings']['ALPHA']}) then RL"
    return LakeResult(
        arm=run["arm"],
        label=LABELS.get(run["arm"], fused),
        seed=int(run["settings"]["SEED"]),
        steps=max(by_step),
        success={name: Change(accuracy(first, name)[0], accuracy(last, name)[0]) for name in SOURCES},
        groups_with_a_gradient={name: Change(shares[0][name], shares[1][name]) for name in SOURCES},
        # verl counts the environment's messages too.
        turns=Change(first["val-aux/num_turns/mean"] / 2, last["val-aux/num_turns/mean"] / 2),
        token_entropy=Change(by_step[1]["actor/entropy"], last["actor/entropy"]),
        seconds=run["seconds"],
    )


def read_runs(directories: Sequence[Path]) -> list[LakeResult]:
    """All finished arms, seed by seed."""
    found = []
    for directory in directories:
        for arm in ARMS:
            status = directory / arm / "run.json"
            if status.exists() and json.loads(status.read_text())["exit_code"] == 0:
                found.append(read_arm(directory / arm))
    return found


def table(results: Sequence[LakeResult]) -> str:
    """A row for each arm and seed, as Markdown."""
    head = ["seed", "arm"]
    for where in SOURCES.values():
        head += [f"success, {where}", "gain"]
    head += ["turns", "token entropy (nats)", "groups with a gradient", "seconds"]
    lines = [head, ["---"] * len(head)]
    arrow = "{0.before:.3f} → {0.after:.3f}".format
    for result in results:
        cells = [str(result.seed), result.label]
        for source in SOURCES:
            cells += [arrow(result.success[source]), f"{result.success[source].gain:+.3f}"]
        cells += [f"{result.turns.before:.1f} → {result.turns.after:.1f}", arrow(result.token_entropy)]
        lines.append([*cells, arrow(result.groups_with_a_gradient["lake_in"]), f"{result.seconds:.0f}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def comparison(results: Sequence[LakeResult]) -> str:
    """Rejuvenated minus over-trained, paired by seed, in words; empty below two seeds that have both."""
    said = ""
    for source, where in SOURCES.items():
        for what in ("before", "after"):
            level = {
                arm: {r.seed: getattr(r.success[source], what) for r in results if r.arm == arm}
                for arm in ("rejuvenated", "over")
            }
            if len(set(level["rejuvenated"]) & set(level["over"])) < 2:
                continue
            found = paired(level["rejuvenated"], level["over"])
            d = found.difference
            said += (
                f"Success {what} RL, {where}, rejuvenated - over-trained: {d.mean:+.3f} "
                f"[{d.low:+.3f}, {d.high:+.3f}], higher in {found.positive} of {d.n} seeds.\n"
            )
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dirs", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    results = read_runs(args.run_dirs)
    if not results:
        parser.error("no finished arm: each leaves run.json and log.txt in its own directory")
    text = f"Before RL → after {results[0].steps} steps of RL\n\n{table(results)}\n{comparison(results)}"
    print(text)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "result.md").write_text(text)
    (args.output / "result.json").write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    print("Read level and gain together: a lower start makes a larger gain.")
    print(f"numbers: {args.output}/result.json, result.md\nlogs:    <run>/<arm>/log.txt")


if __name__ == "__main__":
    main()
