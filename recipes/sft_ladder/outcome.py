# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Tables and pictures from the raw results: levels, paired differences, what predicts the outcome, the tuned alpha.

python outcome.py results --output out       (results: rows/, diagnosis/, tuning/, in each a file for each seed)
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from analyse import IN, OUT, Row, after, before, comparisons, levels, paired, values
from depths import CONTROLS, FUSION, GRID, LADDER, MODERATE, OVER, RUNGS, STARTS, Start
from predict import (
    BASELINE,
    CHOSEN_ON,
    Levels,
    Prediction,
    Signals,
    directions_of,
    is_good,
    predictions,
    signals_of,
)
from study import read_seeds

# Each of the first against the second.
QUESTIONS = (
    (MODERATE, OVER),
    (FUSION, OVER),
    ("fusion_reset", FUSION),
    ("fusion_reset", MODERATE),
    (FUSION, MODERATE),
    ("fusion_reset", "fusion_random"),
    (FUSION, "noise"),
    ("noise", OVER),
    ("small", "larger"),
)
# The paper: a smaller alpha favours problems out of distribution, a larger one those in it. From 0.6 on both fall.
POOLS = {
    "small": ("fusion, alpha 0.2 and 0.3", ("alpha_0.2", "alpha_0.3")),
    "larger": ("fusion, alpha 0.4 and 0.5", ("alpha_0.4", "alpha_0.5")),
}

Rows = Mapping[str, Mapping[int, Row]]


def read_all(directory: Path) -> dict[int, Any]:
    """JSON files by seed."""
    files = sorted(directory.glob("seed*.json"))
    return {int(path.stem.removeprefix("seed")): json.loads(path.read_text()) for path in files}


def by_start(read: list[dict[str, Any]]) -> dict[str, dict[int, Row]]:
    """Rows by start and seed. What is kept outlives the code that made it, but two setups are never mixed, nor two sets
    of models of a seed (`study.bits_of`)."""
    found: dict[str, dict[int, Row]] = {}
    models: dict[int, Any] = {}
    for row in read:
        if models.setdefault(row["seed"], row.get("weights")) != row.get("weights"):
            raise SystemExit(
                f"rows of seed {row['seed']}: expected one set of models, got two. Fix: a directory for each."
            )
        same = found.setdefault(row["arm"], {})
        if same and next(iter(same.values()))["setup"] != row["setup"]:
            raise SystemExit(f"rows of {row['arm']}: expected one setup, got two. Fix: a directory for each.")
        same[row["seed"]] = row
    return found


def pooled(rows: Rows, arms: tuple[str, ...]) -> dict[int, Row]:
    """Levels after RL, means over several starts, by seed; of the seeds that have all of them."""
    seeds = sorted(set.intersection(*(set(rows.get(arm, ())) for arm in arms)))

    def mean(seed: int, where: str) -> float:
        return float(np.mean([after(rows[arm][seed], where) for arm in arms]))

    return {seed: {"after": {where: {"pass_at_1": mean(seed, where)} for where in (IN, OUT)}} for seed in seeds}


def ladders(rows: Rows, where: str) -> dict[int, dict[str, float]]:
    """Levels after RL by seed and rung, of the seeds that have all rungs."""
    names = [f"sft{epochs}" for epochs in RUNGS]
    complete = set.intersection(*(set(rows.get(name, ())) for name in names))
    return {seed: {name: after(rows[name][seed], where) for name in names} for seed in sorted(complete)}


def recovered(rows: Rows, arm: str, where: str, draws: int = 10_000) -> str:
    """Share of the gap between moderate and over-trained that an arm closes, with a 95 % bootstrap interval.

    A ratio of means over seeds; seeds are drawn with replacement. A draw without a gap has no share and is left out.
    """
    of = {name: values(rows, name, lambda row: after(row, where)) for name in (arm, OVER, MODERATE)}
    seeds = sorted(set.intersection(*(set(each) for each in of.values())))
    ours, over, moderate = (np.array([of[name][seed] for seed in seeds]) for name in (arm, OVER, MODERATE))
    if not seeds or (moderate - over).mean() <= 0:
        return "no gap"
    chosen = np.random.default_rng(0).integers(len(seeds), size=(draws, len(seeds)))
    gaps = (moderate - over)[chosen].mean(1)
    shares = (ours - over)[chosen].mean(1)[gaps > 0] / gaps[gaps > 0]
    low, high = np.percentile(shares, (2.5, 97.5))
    return f"{(ours - over).mean() / (moderate - over).mean():.0%} [{low:.0%}, {high:.0%}]"


def gap_table(rows: Rows) -> str:
    lines = ["| start of RL | in distribution | out of distribution |", "|---|---|---|"]
    for arm in (name for name in GRID | CONTROLS if name in rows):
        lines.append(f"| {STARTS[arm].says} | {' | '.join(recovered(rows, arm, where) for where in (IN, OUT))} |")
    return "\n".join(lines) + "\n"


def with_baseline(signals: Signals, rows: Rows) -> Signals:
    """The accuracy before RL on the held-out problems, as one more signal."""
    accuracy = {
        seed: {name: before(rows[name][seed], IN) for name in LADDER if seed in rows.get(name, ())} for seed in signals
    }
    return {seed: {**of_seed, BASELINE: accuracy[seed]} for seed, of_seed in signals.items()}


def prediction_table(found: list[Prediction]) -> str:
    lines = [
        "| signal | better | rho, all seeds | rho, held-out seeds | minus the baseline's rho | p | regret "
        "| threshold | right, held out |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in found:
        better = ("higher" if each.direction > 0 else "lower") + ("" if each.told else " (fitted)")
        against = each.against_baseline
        cells = [
            f"`{each.name}`" if " " not in each.name else each.name,
            better,
            f"{each.everywhere:+.2f} ({each.everywhere.n})",
        ]
        cells += [f"{each.held_out:+.2f}" if each.held_out else "-"]
        cells += [f"{against.difference:+.2f}", f"{against.p:.2f}"] if against else ["-", "-"]
        cells += [f"{each.regret:.3f}", f"{each.threshold.at:.3g}", "-" if each.right is None else f"{each.right:.0%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def verdict_table(diagnoses: Mapping[int, Any], found: Levels) -> str:
    """What became of the rungs that the diagnosis called so, on the seeds nothing was chosen on."""
    said: dict[str, list[tuple[float, bool]]] = {}
    for seed in (seed for seed in found if seed in diagnoses and seed not in CHOSEN_ON):
        good, best = is_good(found[seed]), max(found[seed].values())
        for checkpoint in diagnoses[seed]["checkpoints"]:
            if checkpoint["verdict"] and checkpoint["name"] in good:
                name = checkpoint["name"]
                said.setdefault(checkpoint["verdict"]["level"], []).append((best - found[seed][name], good[name]))
    lines = ["| verdict | rungs | below the best rung after RL | good starts |", "|---|---|---|---|"]
    for level, ends in sorted(said.items(), key=lambda item: np.mean([below for below, _ in item[1]])):
        below, good = [end for end, _ in ends], sum(good for _, good in ends)
        lines.append(f"| {level} | {len(ends)} | {np.mean(below):.3f} | {good} of {len(ends)} |")
    return "\n".join(lines) + "\n"


def tuned_name(tuning: Mapping[str, Any]) -> str:
    return f"alpha_{tuning['choice']['alpha']:g}"


def tuning_table(rows: Rows, tunings: Mapping[int, Any]) -> str:
    """The tuned alpha's level after RL beside that of the grid and of 0.5, by seed; paired differences below.

    Empty if there is no seed with RL from all of these.
    """
    lines = [
        "| seed | tuned alpha | after RL | best of the grid | after RL | 0.5, after RL |",
        "|---|---|---|---|---|---|",
    ]
    tuned, best, half, steady = {}, {}, {}, {}
    for seed, tuning in tunings.items():
        grid = {name: after(rows[name][seed], IN) for name in GRID if seed in rows.get(name, ())}
        row = rows.get(tuned_name(tuning), {}).get(seed)
        if row is None or len(grid) < len(GRID):
            continue
        first = max(grid, key=lambda name: grid[name])
        tuned[seed], best[seed], half[seed] = after(row, IN), grid[first], grid[FUSION]
        # The best of a grid is partly luck; the alpha that is best on the other seeds is not.
        others = {name: np.mean([after(r, IN) for s, r in rows[name].items() if s != seed]) for name in GRID}
        steady[seed] = grid[max(others, key=lambda name: others[name])]
        cells = [str(seed), f"{tuning['choice']['alpha']:g}", f"{tuned[seed]:.3f}", first.removeprefix("alpha_")]
        cells += [f"{best[seed]:.3f}", f"{half[seed]:.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    if not tuned:
        return ""
    lines += ["", "| tuned alpha, after RL, minus | held-out seeds | all seeds | p (all) |", "|---|---|---|---|"]
    for says, theirs in (("the best of the grid", best), ("the alpha best on the other seeds", steady), ("0.5", half)):
        held_out = {seed: level for seed, level in tuned.items() if seed not in CHOSEN_ON}
        cells = []
        for ours in (held_out, tuned):
            d = paired(ours, theirs).difference if {*ours} & {*theirs} else None
            cells.append(f"{d:+.3f} ({d.n})" if d else "-")
        lines.append(f"| {says} | {' | '.join(cells)} | {paired(tuned, theirs).p:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    rows = by_start(read_seeds(args.results / "rows"))
    if not rows:
        parser.error(f"{args.results}: expected rows/seed<N>.jsonl of this study, got none. Fix: run ladder.py first.")
    diagnoses, tunings = read_all(args.results / "diagnosis"), read_all(args.results / "tuning")
    compared = {**rows, **{name: pooled(rows, arms) for name, (_, arms) in POOLS.items()}}
    named = {**STARTS, **{name: Start(says) for name, (says, _) in POOLS.items()}}
    sections = {
        "The ladder": levels(rows, LADDER),
        "Fusion of the rung of 64 epochs": levels(rows, GRID),
        "Controls": levels(rows, CONTROLS),
        "Paired differences, level after RL": comparisons(compared, QUESTIONS, named),
        "Share of the gap between moderate and over-trained that is recovered": gap_table(rows),
    }
    found = {seed: of_seed for seed, of_seed in ladders(rows, IN).items() if seed in diagnoses}
    predicted: list[Prediction] = []
    if {*found} & {*CHOSEN_ON}:
        signals = with_baseline({seed: signals_of(diagnoses[seed]) for seed in found}, rows)
        told = directions_of(diagnoses[next(iter(found))])
        predicted = predictions(signals, found, told)
        sections["What predicts the level after RL"] = prediction_table(predicted)
        sections["Verdicts on the held-out seeds"] = verdict_table(diagnoses, found)
    if tunings:
        sections["The tuned alpha"] = tuning_table(rows, tunings)
    # A table of nothing has its head only.
    shown = {title: table for title, table in sections.items() if table.count("\n") > 2}
    text = "\n".join(f"### {title}\n\n{table}" for title, table in shown.items())
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "result.md").write_text(text)
    from plots import draw_ladder, draw_predictions

    draw_ladder(rows, args.output / "sft_ladder.png")
    if predicted:
        draw_predictions(predicted, args.output / "predictors.png")
    print(text)


if __name__ == "__main__":
    main()
