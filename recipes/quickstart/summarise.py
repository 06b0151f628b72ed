# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Read what the arms of one run left behind; print the table, write result.json, result.md and curves.png.

python summarise.py out/runs/seed0-<hash>-steps50

Where each number comes from: accuracy, verl's own validation at step 0 and at the last step
(`val-core/nav_*/acc/mean@n`); groups with a gradient, the dumps of the same validation; token entropy, verl's
`actor/entropy` of the first and the last step; seconds and memory, watch.py.
"""

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from nav_task import distance
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from settings import Settings
from watch import REWARD, read_records

ARMS = ("base", "moderate", "over", "rejuvenated", "reset")

LABELS = {"over": "SFT then RL", "moderate": "moderate SFT then RL", "base": "RL from the base"}


@dataclass(frozen=True)
class Change:
    """A number before RL and after."""

    before: float
    after: float

    @property
    def gain(self) -> float:
        return self.after - self.before


@dataclass(frozen=True)
class ArmResult:
    """One arm. Shares in [0, 1], entropy in nats; the curves have one value for each RL step."""

    arm: str
    label: str
    steps: int
    accuracy_in: Change
    accuracy_out: Change
    token_entropy: Change
    gradient_share_in: Change
    gradient_share_out: Change
    seconds: float
    peak_memory_gib: float
    group: int
    reward_curve: list[float]
    entropy_curve: list[float]
    gradient_share_curve: list[float]


def source_of(row: Mapping[str, Any]) -> str:
    """The data source of a line of verl's dumps, which does not name it."""
    return "nav_out" if distance(row["gts"]) > Settings().in_max else "nav_in"


def gradient_share(dump: Path, source_of: Callable[[Mapping[str, Any]], str] = source_of) -> dict[str, float]:
    """Share of groups with some right and some wrong answers in one of verl's dumps, by data source."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for line in dump.read_text().splitlines():
        row = json.loads(line)
        # verl's key is <uid of the prompt>_<sample>_<turn>.
        groups[source_of(row), row["uid"].rsplit("_", 2)[0]].append(row["score"])
    mixed: dict[str, list[bool]] = defaultdict(list)
    for (source, _), scores in groups.items():
        mixed[source].append(min(scores) < max(scores))
    return {source: mean(values) for source, values in mixed.items()}


def accuracy(data: dict[str, float], source: str) -> tuple[float, int]:
    """Validation accuracy and the number of samples for each problem, from the metrics of one step."""
    for name, value in data.items():
        if match := re.fullmatch(rf"val-(?:core|aux)/{source}/acc/mean@(\d+)", name):
            return value, int(match[1])
    raise KeyError(f"no validation accuracy of {source} among {sorted(name for name in data if 'val' in name)}")


def steps_of_run(directory: Path) -> dict[int, dict[str, float]]:
    """verl's metrics of an arm by step."""
    # verl may log one step twice (the step and its checkpoint): the later values win, none is lost.
    by_step: dict[int, dict[str, float]] = defaultdict(dict)
    for record in read_records(directory / "metrics.jsonl"):
        by_step[record["step"]].update(record["data"])
    return dict(by_step)


def read_arm(directory: Path) -> ArmResult:
    """Everything about one finished arm."""
    run, by_step = json.loads((directory / "run.json").read_text()), steps_of_run(directory)
    last = max(by_step)
    trained = [by_step[step] for step in sorted(by_step) if step > 0]
    before_in, group = accuracy(by_step[0], "nav_in")
    shares = {step: gradient_share(directory / "validation" / f"{step}.jsonl") for step in (0, last)}
    rollouts = [directory / "rollouts" / f"{step}.jsonl" for step in range(1, last + 1)]
    reset = " + reset" if run["arm"] == "reset" else ""
    label = LABELS.get(run["arm"], f"rejuvenated (alpha {run['settings']['ALPHA']}){reset} then RL")
    return ArmResult(
        arm=run["arm"],
        label=label,
        steps=last,
        accuracy_in=Change(before_in, accuracy(by_step[last], "nav_in")[0]),
        accuracy_out=Change(accuracy(by_step[0], "nav_out")[0], accuracy(by_step[last], "nav_out")[0]),
        token_entropy=Change(trained[0]["actor/entropy"], trained[-1]["actor/entropy"]),
        gradient_share_in=Change(shares[0]["nav_in"], shares[last]["nav_in"]),
        gradient_share_out=Change(shares[0]["nav_out"], shares[last]["nav_out"]),
        seconds=run["seconds"],
        peak_memory_gib=run["peak_memory_bytes"] / 2**30,
        group=group,
        reward_curve=[data[REWARD] for data in trained],
        entropy_curve=[data["actor/entropy"] for data in trained],
        gradient_share_curve=[gradient_share(path)["nav_in"] for path in rollouts if path.exists()],
    )


def read_run(run_dir: Path) -> list[ArmResult]:
    """All finished arms of a run, in a fixed order."""
    found = []
    for arm in ARMS:
        status = run_dir / arm / "run.json"
        if status.exists() and json.loads(status.read_text())["exit_code"] == 0:
            found.append(read_arm(run_dir / arm))
    return found


def columns(group: int) -> list[str]:
    """The table's head."""
    return [
        "arm",
        "accuracy, in distribution",
        "gain",
        "accuracy, out of distribution",
        "gain",
        "token entropy (nats)",
        f"groups of {group} with a gradient",
        "seconds",
    ]


def cells(result: ArmResult) -> list[str]:
    """One row of the table."""
    arrow = "{0.before:.3f} → {0.after:.3f}".format
    return [
        result.label,
        arrow(result.accuracy_in),
        f"{result.accuracy_in.gain:+.3f}",
        arrow(result.accuracy_out),
        f"{result.accuracy_out.gain:+.3f}",
        arrow(result.token_entropy),
        arrow(result.gradient_share_in),
        f"{result.seconds:.0f}",
    ]


def markdown(results: list[ArmResult]) -> str:
    """The table for a README."""
    head = columns(results[0].group)
    lines = [head, ["---"] * len(head), *(cells(result) for result in results)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--install-seconds", type=float, default=0.0)
    parser.add_argument("--models-seconds", type=float, default=0.0)
    args = parser.parse_args()
    results = read_run(args.run_dir)
    if not results:
        parser.error(f"no finished arm in {args.run_dir}: each leaves run.json and log.txt in its own directory")
    console = Console(width=None if Console().is_terminal else 150)
    table = Table(title=f"Before RL → after {results[0].steps} steps of RL")
    for index, name in enumerate(columns(results[0].group)):
        table.add_column(name, justify="left" if index == 0 else "right")
    for result in results:
        table.add_row(*map(escape, cells(result)))
    console.print(table)
    summary: dict[str, Any] = {
        "settings": asdict(Settings()),
        "install_seconds": args.install_seconds,
        "models_seconds": args.models_seconds,
        "arms": [asdict(result) for result in results],
    }
    (args.run_dir / "result.json").write_text(json.dumps(summary, indent=2) + "\n")
    (args.run_dir / "result.md").write_text(markdown(results))

    from curves import draw

    draw(results, args.run_dir / "curves.png")
    print("Read level and gain together: a lower start makes a larger gain. This is one seed; SEED=1 runs another.")
    print(f"seconds: installation {args.install_seconds:.0f}, models {args.models_seconds:.0f}, ", end="")
    print(", ".join(f"{result.arm} {result.seconds:.0f}" for result in results), end="")
    print(f"; peak memory of an arm {max(result.peak_memory_gib for result in results):.1f} GiB")
    print(f"curves:      {args.run_dir}/curves.png")
    print(f"numbers:     {args.run_dir}/result.json, result.md")
    print(f"TensorBoard: tensorboard --logdir {args.run_dir}/tensorboard")
    print(f"logs:        {args.run_dir}/<arm>/log.txt")


if __name__ == "__main__":
    main()
