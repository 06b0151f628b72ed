# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Paired statistics of the study: every arm against another over the same seeds; tables (result.md) and a picture.

python analyse.py out/rows --output out
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from math import isnan, nan
from pathlib import Path

import numpy as np
from arms import ARMS, MAIN, VARIANTS, Arm
from grpo import RL
from scipy import stats
from study import read_seeds, setup_of

Row = Mapping[str, object]
IN, OUT = "nav_in", "nav_out"
# What the study was made to ask: each of the first against the second.
QUESTIONS = (
    ("fusion", "over"),
    ("fusion_reset", "over"),
    ("reset", "over"),
    ("fusion_reset", "fusion"),
    ("fusion_random", "fusion"),
    ("fusion_bottom", "fusion"),
    ("fusion_reset", "fusion_random"),
    ("fusion_reset", "fusion_bottom"),
    ("reset", "reset_random"),
)


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % confidence interval by Student's t."""

    mean: float
    low: float
    high: float
    n: int

    def __format__(self, spec: str) -> str:
        """Each number as ``spec`` says."""
        of = spec or ".3f"
        return f"{self.mean:{of}} [{self.low:{of}}, {self.high:{of}}]" if self.n > 1 else f"{self.mean:{of}}"


@dataclass(frozen=True)
class Paired:
    """Differences of two arms over the seeds that both have."""

    difference: Interval
    positive: int
    p: float
    """Two-sided, of an exact sign-flip test: no assumption but that, without an effect, either sign is as likely."""


def interval(values: list[float]) -> Interval:
    """Mean and t-interval; of one value, no width."""
    array = np.asarray(values)
    mean, n = float(array.mean()), len(array)
    half = float(stats.t.ppf(0.975, n - 1) * stats.sem(array)) if n > 1 else 0.0
    return Interval(mean, mean - half, mean + half, n)


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Paired:
    """Compare by seed. Seeds that only one of them has are left out."""
    differences = np.array([ours[seed] - theirs[seed] for seed in sorted(set(ours) & set(theirs))])
    # 4 096 sign patterns at 12 seeds: all of them are tried.
    signs = np.array(list(product((1, -1), repeat=len(differences))))
    flipped = np.abs((signs * differences).mean(1))
    p = float((flipped >= abs(differences.mean()) - 1e-12).mean())
    return Paired(interval(differences.tolist()), int((differences > 0).sum()), p)


def after(row: Row, where: str) -> float:
    return row["after"][where]["pass_at_1"]


def before(row: Row, where: str) -> float:
    return row["before"][where]["pass_at_1"]


def values(rows: Mapping[str, Mapping[int, Row]], arm: str, of: Callable[[Row], float]) -> dict[int, float]:
    """A number of an arm by seed."""
    return {seed: of(row) for seed, row in rows.get(arm, {}).items()}


def by_arm(directory: Path, rl: RL) -> dict[str, dict[int, Row]]:
    """Rows by arm and seed; rows of other settings than today's are left out, and counted aloud."""
    found: dict[str, dict[int, Row]] = defaultdict(dict)
    stale = 0
    for row in read_seeds(directory):
        if row["arm"] in ARMS and row["setup"] == setup_of(ARMS[row["arm"]], rl):
            found[row["arm"]][row["seed"]] = row
        else:
            stale += 1
    if stale:
        print(f"{stale} rows of other settings left out")
    return dict(found)


def levels(rows: Mapping[str, Mapping[int, Row]], arms: Mapping[str, Arm]) -> str:
    """Level before and after RL and the gain, in and out of distribution."""
    lines = [
        "| start of RL | seeds | neurons reset | entropy before (nats) | in: before | in: after | in: gain "
        "| out: before | out: after | out: gain |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in (name for name in arms if name in rows):

        def mean(of: Callable[[Row], float], arm: str = arm) -> Interval:
            return interval(list(values(rows, arm, of).values()))

        cells = [arms[arm].says, str(len(rows[arm])), f"{mean(lambda r: r['share_reset']).mean:.1%}"]
        # Rows of RL under verl have none.
        entropy = mean(lambda r: r["before"][IN].get("token_entropy", nan)).mean
        cells.append("-" if isnan(entropy) else f"{entropy:.3f}")
        for where in (IN, OUT):
            cells.append(f"{mean(lambda r, w=where: before(r, w)).mean:.3f}")
            cells.append(f"{mean(lambda r, w=where: after(r, w))}")
            cells.append(f"{mean(lambda r, w=where: after(r, w) - before(r, w)).mean:+.3f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def comparisons(
    rows: Mapping[str, Mapping[int, Row]], questions: Iterable[tuple[str, str]], arms: Mapping[str, Arm] = ARMS
) -> str:
    """Differences after RL, paired by seed."""
    lines = [
        "| comparison | seeds | in: after RL | in favour | p | out: after RL | in favour | p |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for ours, theirs in questions:
        if not set(rows.get(ours, ())) & set(rows.get(theirs, ())):
            continue
        cells = []
        for where in (IN, OUT):
            found = paired(*(values(rows, arm, lambda r, w=where: after(r, w)) for arm in (ours, theirs)))
            d = found.difference
            p = f"{found.p:.2f}" if found.p >= 0.01 else f"{found.p:.3f}"
            cells += [f"{d:+.3f}", f"{found.positive} of {d.n}", p]
        lines.append(f"| {arms[ours].says}, against {arms[theirs].says} | {d.n} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="directory of study.py")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=RL.steps)
    args = parser.parse_args()
    rows = by_arm(args.rows, RL(steps=args.steps))
    if not rows:
        parser.error(f"{args.rows}: expected rows of this study's arms, got none. Fix: run study.py first.")
    sensitivity = tuple((name, "fusion_reset") for name in VARIANTS)
    sections = {
        "Main arms": levels(rows, MAIN),
        "Paired differences, level after RL": comparisons(rows, QUESTIONS),
        "Variants: one setting of fusion + reset changed": levels(rows, VARIANTS),
        "Variants against fusion + reset": comparisons(rows, sensitivity),
        "Variants against fusion": comparisons(rows, tuple((name, "fusion") for name in VARIANTS)),
    }
    seeds = max(len(of_arm) for of_arm in rows.values())
    note = (
        "Accuracy (pass@1); means over seeds with 95 % confidence intervals (t); p: exact sign-flip test, two-sided, "
        f"not corrected for the number of comparisons; with {seeds} seeds it cannot be below {2 / 2**seeds:.3f}, with "
        "5 not below 0.062. The question asked first: fusion + reset against fusion.\n"
    )
    text = note + "".join(f"\n### {title}\n\n{table}" for title, table in sections.items() if table.count("\n") > 2)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "result.md").write_text(text)
    from picture import draw

    draw(rows, args.output / "reset_study.png")
    print(text)
    print(f"tables: {args.output}/result.md\npicture: {args.output}/reset_study.png")


if __name__ == "__main__":
    main()
