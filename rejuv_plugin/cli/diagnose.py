# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``rejuv diagnose``: is a checkpoint over-trained, ready for RL, or too weak to learn from?"""

import json
from pathlib import Path
from typing import Annotated

from ..config import DiagnosisConfig
from ..config.diagnosis import SIGNALS
from ..errors import InputError
from .command import Option
from .options import as_options


def diagnose(
    base: Annotated[str, Option("Model that SFT started from: directory or hub name.")],
    sft: Annotated[list[str], Option("SFT checkpoint; may be given several times, in the order of training.")],
    calibration: Annotated[
        str, Option("Parquet or jsonl of prompt and response, or of messages: as SFT's, best held out.")
    ],
    output: Annotated[Path, Option("Directory to write; must be new or empty.")],
    prompts: Annotated[
        list[str] | None, Option("RL training data to answer, parquet or jsonl; may be given several times.")
    ] = None,
    reward: Annotated[
        str | None, Option("FILE.py:FUNCTION, verl's compute_score; runs that file.")
    ] = DiagnosisConfig.reward,
    group: Annotated[int, Option("Answers to each prompt, as rollout.n of RL.")] = DiagnosisConfig.group,
    count: Annotated[int, Option("Prompts to answer.")] = DiagnosisConfig.count,
    max_response: Annotated[int, Option("Tokens of an answer.")] = DiagnosisConfig.max_response,
    temperature: Annotated[float, Option("Of RL's rollouts.")] = DiagnosisConfig.temperature,
    pass_score: Annotated[float, Option("An answer passes with a score above it.")] = DiagnosisConfig.pass_score,
    examples: Annotated[
        int, Option("Calibration dialogues to look at, from the file's beginning.")
    ] = DiagnosisConfig.examples,
    max_tokens: Annotated[int, Option("Longer calibration dialogues are cut here.")] = DiagnosisConfig.max_tokens,
    signals: Annotated[str, Option(f"What to measure, of {', '.join(SIGNALS)}; separated by commas.")] = ",".join(
        SIGNALS
    ),
    hessian: Annotated[bool, Option("Also the Hessian's largest eigenvalue: some dozens of passes.")] = False,
    seed: Annotated[int, Option("Of prompts, sampling and intervals.")] = DiagnosisConfig.seed,
    device: Annotated[str, Option("cpu, cuda, or auto: a GPU if there is one.")] = DiagnosisConfig.device,
) -> None:
    """Say before RL whether a checkpoint is over-trained, with the evidence: forward passes and samples, no training.

    Measures the base and each SFT checkpoint on the calibration data: how certain it is, how far its weights moved and
    where, how many neurons and directions it uses, how sharp its loss is. With --prompts it also samples answers, and
    with --reward it judges them: pass@1, pass@k, and whether groups of answers would have a gradient. All of a ladder's
    checkpoints see the same data and the same random numbers. Models run in float32, one at a time.

    Writes metrics.json, everything that was measured, and report.html, the same for people. Verdicts: ready, at_risk,
    over_trained, too_weak (RL would see no right answers; not to be cured by rejuvenation), unknown.

    Examples:

        rejuv diagnose --base Qwen/Qwen2.5-0.5B --sft runs/sft/epoch_32 --calibration held_out.parquet \\
        --output runs/diagnosis

        rejuv diagnose --base Qwen/Qwen2.5-0.5B --sft runs/sft/epoch_2 --sft runs/sft/epoch_32 \\
        --calibration held_out.parquet --prompts data/train.parquet --reward reward.py:compute_score \\
        --output runs/diagnosis
    """
    settings = as_options(
        DiagnosisConfig,
        calibration=calibration,
        prompts=tuple(prompts or ()),
        reward=reward,
        group=group,
        count=count,
        max_response=max_response,
        temperature=temperature,
        pass_score=pass_score,
        examples=examples,
        max_tokens=max_tokens,
        signals=signals,
        hessian=hessian,
        seed=seed,
        device=device,
    )
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise InputError("--output", "a new or empty directory", str(output), "give another path")
    # Imported late: torch takes seconds, and --help must not wait for it.
    from ..checkpoint import bars
    from ..checkpoint.cache import make_directory
    from ..checkpoint.small_file import write_text
    from ..diagnose.inputs import read_inputs
    from ..diagnose.run import diagnose as measure
    from ..report.console import show
    from ..report.diagnose import table
    from ..report.diagnosis import write

    inputs = read_inputs(base, sft, settings)
    # One that cannot be made is told of before the work, not after it.
    make_directory(output, "--output")
    with bars() as progress:
        metrics = measure(inputs, progress)
    write_text(output / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    write(metrics, output / "report.html")
    show(table(metrics))
    print(
        f"{metrics['seconds']:.0f} s; everything that was measured: {output / 'report.html'}, {output / 'metrics.json'}"
    )
