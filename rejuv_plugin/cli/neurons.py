# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``rejuv calibrate`` and ``rejuv reset-set``: data to find neurons with, and a look at those that were found."""

import json
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click

from ..config import ResetConfig
from ..config.checks import DEVICES, one_of
from ..errors import InputError
from .options import PATH

if TYPE_CHECKING:
    from ..neurons.reset_set import ResetSet


@click.command(short_help="Sample answers of the SFT checkpoint, as data.")
@click.option("--sft", required=True, help="Over-trained SFT checkpoint: directory or hub name.")
@click.option(
    "--prompts", multiple=True, required=True, help="RL training data, parquet or jsonl; may be given several times."
)
@click.option("--output", type=PATH, required=True, help="The jsonl file to write; must not exist.")
@click.option(
    "--examples", type=click.IntRange(min=1), default=ResetConfig.examples, help="Number of prompts to answer."
)
@click.option(
    "--max-response", type=click.IntRange(min=1), default=1024, help="Tokens; unfinished answers are left out."
)
@click.option("--column", default="prompt", help="Column of the prompts: strings or chat messages.")
@click.option("--seed", default=ResetConfig.seed, help="Of the choice of prompts and of the sampling.")
@click.option("--device", default=ResetConfig.device, help="cpu, cuda, or auto: a GPU if there is one.")
def calibrate(
    sft: str,
    prompts: tuple[str, ...],
    output: Path,
    examples: int,
    max_response: int,
    column: str,
    seed: int,
    device: str,
) -> None:
    """Make calibration data: the SFT checkpoint's own answers to prompts of the RL training set.

    For rejuv apply --reset-ratio, when there are no pairs of prompts and responses at hand. One answer at temperature 1
    to each prompt. A verl job does this by itself when it is given a reset ratio and no calibration data.

    \b
    Example:
      rejuv calibrate --sft runs/sft/epoch_32 --prompts data/train.parquet --output calibration.jsonl
    """
    from ..checkpoint import bars, read_checkpoint
    from ..checkpoint.target import check_new
    from ..probe.calibration import write_pairs
    from ..probe.load import device_of, fitting
    from ..probe.prompts import Prompts
    from ..probe.sample import sample_pairs

    one_of("--device", device, DEVICES)
    target = device_of(device, "--device")
    if output.suffix != ".jsonl":
        raise InputError("--output", "a .jsonl file", str(output), "give it that suffix")
    check_new(output, "--output")
    checkpoint = read_checkpoint(sft, "--sft")
    source = Prompts(prompts, column, None, max_response, "--prompts")
    source.check()
    with bars() as progress, fitting(target, "--device"):
        pairs = sample_pairs(checkpoint, source, examples, seed, target, progress)
    write_pairs(pairs, output)
    print(f"{len(pairs)} finished answers of the {examples} that were asked for: {output}")
    if 2 * len(pairs) < examples:
        print(
            f"rejuv: warning: {examples - len(pairs)} answers are missing: too few prompts, or too long for "
            f"--max-response {max_response}",
            file=sys.stderr,
        )


@click.command(short_help="Show which neurons a reset takes, or how two sets differ.")
@click.argument("file", type=PATH)
@click.argument("other", type=PATH, required=False)
@click.option("--picture", type=PATH, help="Also draw the shares as a heat map, layers by modules, into this PNG file.")
@click.option("--json", "as_json", is_flag=True, help="Print everything that is known as JSON.")
def reset_set(
    file: Path,
    other: Path | None,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Show which share of each module a reset set takes and what was measured, or how two sets differ.

    FILE is what rejuv apply --save-reset-set or a verl job's cache has; OTHER another one, to compare with.
    """
    from ..checkpoint import reset_file
    from ..checkpoint.target import check_new
    from ..neurons.reset_set import grid

    ours = reset_file.load(file, "FILE")
    if picture:
        if other is not None:
            raise InputError("--picture", "one reset set", "two, to compare", "draw each by itself")
        if picture.suffix != ".png":
            raise InputError("--picture", "a .png file", str(picture), "give it that suffix")
        check_new(picture, "--picture")
    if other is not None:
        _compare(ours, reset_file.load(other, "OTHER"), str(file), str(other), as_json)
        return
    if as_json:
        print(json.dumps(ours.to_json() | {"shares": grid(ours)}, indent=2))
    else:
        _show(ours)
    if picture:
        from ..report.heatmap import draw

        draw(ours, picture, "--picture")
        print(f"picture: {picture}", file=sys.stderr)


def _compare(ours: "ResetSet", theirs: "ResetSet", our_name: str, their_name: str, as_json: bool) -> None:
    from ..neurons.reset_set import difference

    compared = difference(ours, theirs)
    if as_json:
        print(json.dumps(compared, indent=2))
        return
    for name, found in compared.items():
        only = f"{len(found['only_ours'])} only in {our_name}, {len(found['only_theirs'])} only in {their_name}"
        print(f"Jaccard {found['jaccard']:.3f}  {name}: {only}")


def _show(chosen: "ResetSet") -> None:
    from rich.table import Table

    from ..neurons.reset_set import grid, shares
    from ..report.console import show

    by_layer = grid(chosen)
    kinds = list(dict.fromkeys(kind for row in by_layer.values() for kind in row))
    table = Table("layer", title="Share of neurons in the set")
    for kind in kinds:
        table.add_column(kind, justify="right")
    for layer, row in by_layer.items():
        table.add_row(layer, *(f"{row[kind]:.1%}" if kind in row else "" for kind in kinds))
    show(table)
    neurons = sum(len(c.indices) for c in chosen.modules.values())
    whole = shares(chosen, dict.fromkeys(chosen.modules, "all"))["all"]
    print(f"{neurons:,} neurons, {whole:.2%} of all scored; digest {chosen.digest[:16]}")
    said = chosen.statistics
    # A set that was made by hand need not say how.
    if not {"entropy", "reconstruction_error", "jaccard_of_halves", "seconds", "device"} <= said.keys():
        return
    entropy, error, halves = said["entropy"], said["reconstruction_error"], said["jaccard_of_halves"]
    print(
        f"token entropy (nats): base {entropy['base']['mean']:.3f}, SFT {entropy['sft']['mean']:.3f}; at the "
        f"{said['positions']} kept of {said['response_tokens']} positions: base {entropy['base']['mean_kept']:.3f}, "
        f"SFT {entropy['sft']['mean_kept']:.3f}"
    )
    print(
        f"reconstruction error of the kept logits: {error['relative']:.2e} of their size, "
        f"at most {error['max_absolute']:.2e}"
    )
    if cuts := said.get("cuts"):
        print(f"{cuts['close']:,} of {cuts['in_all']:,} cuts are so close that another machine may draw them elsewhere")
    if known := [overlap for overlap in (halves or {}).values() if overlap is not None]:
        unknown = len(halves) - len(known)
        print(
            f"Jaccard of the sets of both halves of the data: median {median(known):.2f}, lowest {min(known):.2f}"
            + (f"; {unknown:,} modules had no token in one of them" if unknown else "")
        )
    print(f"found in {said['seconds']} s on {said['device']}, peak memory {said['peak_memory_bytes'] / 2**30:.2f} GiB")
