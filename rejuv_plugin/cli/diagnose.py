# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``rejuv diagnose``: is a checkpoint over-trained, ready for RL, or too weak to learn from?"""

import json
import sys
from pathlib import Path
from typing import Any

import click

from ..config import DiagnosisConfig
from ..config.diagnosis import SIGNALS
from ..errors import InputError
from .options import PATH, as_options


@click.command(short_help="Is a checkpoint over-trained? Measured, without RL.")
@click.option("--base", required=True, help="Model that SFT started from: directory or hub name.")
@click.option(
    "--sft", multiple=True, required=True, help="SFT checkpoint; may be given several times, in the order of training."
)
@click.option(
    "--calibration",
    required=True,
    help="Parquet or jsonl of prompt and response, or of messages: like SFT's training data, best held out from it.",
)
@click.option("--output", type=PATH, required=True, help="Directory to write; must be new or empty.")
@click.option(
    "--prompts", multiple=True, help="RL training data to answer, parquet or jsonl; may be given several times."
)
@click.option(
    "--reward", default=DiagnosisConfig.reward, help="FILE.py:FUNCTION, verl's compute_score; runs that file."
)
@click.option("--group", default=DiagnosisConfig.group, help="Answers to each prompt, as rollout.n of RL.")
@click.option("--count", default=DiagnosisConfig.count, help="Prompts to answer.")
@click.option("--max-response", default=DiagnosisConfig.max_response, help="Tokens of an answer.")
@click.option("--temperature", default=DiagnosisConfig.temperature, help="Of RL's rollouts.")
@click.option("--pass-score", default=DiagnosisConfig.pass_score, help="An answer passes with a score above it.")
@click.option(
    "--examples", default=DiagnosisConfig.examples, help="Calibration dialogues to look at, from the file's beginning."
)
@click.option("--max-tokens", default=DiagnosisConfig.max_tokens, help="Longer calibration dialogues are cut here.")
@click.option(
    "--signals", default=",".join(SIGNALS), help=f"What to measure, of {', '.join(SIGNALS)}; separated by commas."
)
@click.option("--hessian", is_flag=True, help="Also the Hessian's largest eigenvalue: some dozens of passes.")
@click.option("--seed", default=DiagnosisConfig.seed, help="Of prompts, sampling and intervals.")
@click.option("--device", default=DiagnosisConfig.device, help="cpu, cuda, or auto: a GPU if there is one.")
def diagnose(base: str, sft: tuple[str, ...], output: Path, **options: Any) -> None:
    """Say before RL whether a checkpoint is over-trained, with the evidence: forward passes and samples, no training.

    Measures the base and each SFT checkpoint on the calibration data: how certain it is, how far its weights moved and
    where, how many neurons and directions it uses, how sharp its loss is. With --prompts it also samples answers, and
    with --reward it judges them: pass@1, pass@k, and whether groups of answers would have a gradient. All of a ladder's
    checkpoints see the same data and the same random numbers. Models run in float32, one at a time.

    Writes metrics.json, everything that was measured, and report.html, the same for people. Verdicts: ready, at_risk,
    over_trained, too_weak (RL would see no right answers; not to be cured by rejuvenation), unknown.

    \b
    Examples:
      rejuv diagnose --base Qwen/Qwen2.5-0.5B --sft runs/sft/epoch_32 --calibration held_out.parquet \\
          --output runs/diagnosis
      rejuv diagnose --base Qwen/Qwen2.5-0.5B --sft runs/sft/epoch_2 --sft runs/sft/epoch_32 \\
          --calibration held_out.parquet --prompts data/train.parquet --reward reward.py:compute_score \\
          --output runs/diagnosis
    """
    (settings,) = as_options(options, DiagnosisConfig)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise InputError("--output", "a new or empty directory", str(output), "give another path")
    # Imported late: torch takes seconds, and --help must not wait for it.
    from ..checkpoint import bars
    from ..checkpoint.cache import make_directory
    from ..checkpoint.small_file import write_text
    from ..checkpoint.target import check_writable
    from ..diagnose.inputs import read_inputs
    from ..diagnose.run import diagnose as measure
    from ..report.apply import unrelated
    from ..report.console import show
    from ..report.diagnose import table
    from ..report.diagnosis import write
    from ..report.diagnosis.read import FILE

    inputs = read_inputs(base, sft, settings)
    # One that cannot be written is told of before the work, not after it.
    check_writable(make_directory(output, "--output"), "--output")
    with bars() as progress:
        metrics = measure(inputs, progress)
    # Whatever becomes of the disk, this is not lost.
    show(table(metrics))
    write_text(output / FILE, json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    write(metrics, output / "report.html")
    for row in metrics["checkpoints"]:
        for name, why in row["not_measured"].items():
            print(f"{row['name']}: {name} was not measured: {why}")
        if warning := unrelated(row["numbers"]["drift"]["value"]):
            print(f"rejuv: warning: {row['name']}: {warning}", file=sys.stderr)
    print(f"{metrics['seconds']:.0f} s; everything that was measured: {output / 'report.html'}, {output / FILE}")
