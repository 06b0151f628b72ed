# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``rejuv tune``: which alpha to start RL from, by measurement."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..checkpoint.small_file import read_json
from ..config import FusionConfig, ResetConfig, TuningConfig
from ..config.tuning import numbers
from ..errors import InputError
from ..tune.earlier import REPORT, RESULT, TRACE, is_kept, kept
from .options import PATH, as_options

if TYPE_CHECKING:
    from ..checkpoint import Plan

_OURS = {RESULT, TRACE, REPORT}


@click.command(short_help="Choose alpha by sampled answers, without RL.")
@click.option("--base", required=True, help="Model the SFT checkpoint started from: directory or hub name.")
@click.option("--sft", required=True, help="Over-trained SFT checkpoint: directory or hub name.")
@click.option(
    "--prompts", multiple=True, required=True, help="RL training data, parquet or jsonl; may be given several times."
)
@click.option("--reward", required=True, help="FILE.py:FUNCTION, verl's compute_score; runs that file.")
@click.option(
    "--output", type=PATH, required=True, help="Directory to write; new, empty, or that of an earlier search."
)
@click.option(
    "--alphas",
    default=TuningConfig.alphas,
    help="LOW:HIGH, searched; or single ones, 0.4,0.5,0.6. 0.5 is always tried.",
)
@click.option("--step", default=TuningConfig.step, help="Between the alphas of LOW:HIGH that are tried first.")
@click.option("--resolution", default=TuningConfig.resolution, help="No steps smaller than this.")
@click.option(
    "--rho",
    default="0",
    help="Shares of neurons to reset, each tried with every alpha: 0,0.01. Above 0: --calibration.",
)
@click.option("--calibration", help="Parquet or jsonl of prompt and response, or of messages; to find neurons with.")
@click.option("--count", default=TuningConfig.count, help="Prompts for each alpha that stays in the race.")
@click.option("--group", default=8, help="Answers to each prompt, as rollout.n of RL.")
@click.option("--max-response", default=1024, help="Tokens of an answer.")
@click.option("--temperature", default=1.0, help="Of RL's rollouts.")
@click.option("--best-of", default=TuningConfig.best_of, help="The objective: what the best of so many answers earns.")
@click.option("--pass-score", default=TuningConfig.pass_score, help="An answer passes with a score above it.")
@click.option("--column", default="prompt", help="Column of the prompts: strings or chat messages.")
@click.option("--seed", default=TuningConfig.seed, help="Of prompts, sampling and intervals.")
@click.option(
    "--sampler",
    default=TuningConfig.sampler,
    help="transformers, or vllm: faster on a GPU, without common random numbers.",
)
@click.option(
    "--grown-vocabulary",
    default=FusionConfig.grown_vocabulary,
    help="Other numbers of embedding rows: refuse, or keep the SFT's own rows as they are.",
)
@click.option("--device", default=TuningConfig.device, help="cpu, cuda, or auto: a GPU if there is one.")
def tune(
    base: str,
    sft: str,
    prompts: tuple[str, ...],
    reward: str,
    output: Path,
    rho: str,
    calibration: str | None,
    column: str,
    grown_vocabulary: str,
    **options: Any,
) -> None:
    """Choose alpha by measurement, without any RL: fuse in memory, sample answers to RL prompts, score them.

    What is maximised is the score that the best of k answers to a prompt is expected to have (pass@k for scores of 0
    and 1): it rises with skill and with variety, and RL needs both. All alphas answer the same prompts on the same
    random numbers; those that are clearly worse stop early. Prints the curve and how sure the choice is. It is a guess
    about RL from its start: when the output says that two alphas cannot be told apart, believe it.

    Every answer's score is kept in trace.jsonl: the same command again costs nothing, one with more --count goes on.

    \b
    Example:
      rejuv tune --base Qwen/Qwen2.5-0.5B --sft runs/sft/epoch_32 --prompts data/train.parquet \\
          --reward reward.py:compute_score --max-response 512 --output runs/tuning
    """
    (settings,) = as_options(options, TuningConfig)
    rhos = tuple(sorted(set(numbers(rho, "--rho", "0,0.01"))))
    if any(rhos) and not calibration:
        raise InputError("--calibration", "prompts and responses, with --rho", "none", "make some with rejuv calibrate")
    _check_output(output)
    # Imported late: torch takes seconds, and --help must not wait for it.
    from ..checkpoint import bars, plan_fusion
    from ..checkpoint.cache import make_directory
    from ..probe.prompts import Prompts
    from ..report.console import show
    from ..report.diagnosis import write_tuning
    from ..report.tune import table
    from ..tune.data import Data
    from ..tune.question import question_of
    from ..tune.run import tune as search

    plan = plan_fusion(base, sft, FusionConfig(grown_vocabulary=grown_vocabulary))
    _check_same(output, plan)
    asked = Prompts(prompts, column, None, settings.max_response, "--prompts")
    data = Data(asked, reward, settings.group, settings.temperature)
    question, resets = question_of(plan, settings, data, "--"), {}
    with bars() as progress:
        make_directory(output, "--output")
        for ratio in filter(None, rhos):
            from ..probe.cache import found_once

            measured = ResetConfig(ratio=ratio, calibration=calibration, device=settings.device)
            found = found_once(plan, measured, output, key="--", cache_key="--output", progress=progress)
            resets[ratio] = found.chosen
        question = replace(question, resets=resets)
        result = search(question, settings, output, fusion_alone=0.0 in rhos, progress=progress)
    write_tuning(result, output / REPORT)
    show(table(result))
    print(f"{result['choice']['says']}.\n{result['seconds']:.0f} s")
    print(f"to look at: {output / REPORT}; everything that was measured: {output / RESULT}")
    if earlier := kept(output):
        print(f"earlier results, of other prompts, rewards or settings: {', '.join(map(str, earlier))}")


def _check_same(output: Path, plan: "Plan") -> None:
    """A search between the same two checkpoints may be gone on with, or asked in another way."""
    result = output / RESULT
    if not result.exists():
        return
    try:
        found = read_json(result)
        before = [str(found[side]["path"]) for side in ("base", "sft")]
    except (OSError, ValueError, LookupError, TypeError):
        before = ["something else"]
    if before != [str(plan.base.root), str(plan.sft.root)]:
        raise InputError(
            "--output", "a search between these two checkpoints", f"{result}, of {' and '.join(before)}", "give another"
        )


def _check_output(output: Path) -> None:
    from ..report.page.document import is_report

    there = {entry.name for entry in output.iterdir()} if output.is_dir() else set()
    ours = _OURS | {name for name in there if is_kept(name) or name.startswith((".", "reset-set-"))}
    report = output / REPORT
    if there - ours or (output.exists() and not output.is_dir()) or (report.exists() and not is_report(report)):
        raise InputError(
            "--output", "a new or empty directory, or that of an earlier search", str(output), "give another"
        )
