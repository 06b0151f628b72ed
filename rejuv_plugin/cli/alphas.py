# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``rejuv alphas``: a setting ``alpha_of`` that gives another alpha to what SFT moved furthest."""

import json
import math
import sys

import click

from ..config import FusionConfig
from ..errors import InputError


@click.command(short_help="An alpha for each tensor, by how far SFT moved it.")
@click.option("--base", required=True, help="Model the SFT checkpoint started from: directory or hub name.")
@click.option("--sft", required=True, help="Over-trained SFT checkpoint: directory or hub name.")
@click.option("--alpha", type=float, required=True, help="The alpha of what moved furthest.")
@click.option("--above", default=0.9, help="Quantile of the relative drift, 0 to 1: 0.9 takes the top tenth.")
@click.option("--of", default="tensor", help="What is compared: tensor, or layer: decoder layers alone.")
@click.option("--only-tensors", default=FusionConfig.only_tensors, help="Tensors to compare: shell patterns.")
@click.option(
    "--exclude-tensors", default=FusionConfig.exclude_tensors, help="Tensors to leave out, as --only-tensors."
)
@click.option("--json", "as_json", is_flag=True, help="Print every drift, too, as JSON.")
def alphas(
    base: str,
    sft: str,
    alpha: float,
    above: float,
    of: str,
    only_tensors: str,
    exclude_tensors: str,
    as_json: bool,
) -> None:
    """Print a value for --alpha-of, or rejuvenation.fusion.alpha_of, by how far SFT moved each tensor from the base.

    Relative drift is ||SFT - base|| / ||base||, streamed from the files. The value is all that is printed on stdout; it
    names every tensor or layer that it is for, so that it means the same anywhere. A setting to compare with one alpha
    for all: there is no evidence that it is better.

    \b
    Examples:
      rejuv alphas --base Qwen/Qwen2.5-0.5B --sft runs/sft/epoch_32 --above 0.8 --alpha 0.3 --of layer
      rejuv apply --base BASE --sft SFT --output OUT --alpha-of "$(rejuv alphas --base BASE --sft SFT --alpha 0.3)"
    """
    if not 0.0 <= above < 1.0:
        raise InputError("--above", "a quantile from 0 to below 1", str(above), "use 0.9: the top tenth")
    if not 0.0 <= alpha <= 1.0:
        raise InputError("--alpha", "a number in [0, 1]", str(alpha), "use less than the alpha of all others")
    if of not in ("tensor", "layer"):
        raise InputError("--of", "tensor or layer", repr(of), "use layer")
    from .. import checkpoint
    from ..loading.by_drift import alpha_of, by_layer, drift_of_each, furthest

    # Rows that only the SFT checkpoint has did not move from anywhere.
    fusion = FusionConfig(1.0, only_tensors=only_tensors, exclude_tensors=exclude_tensors, grown_vocabulary="keep")
    plan = checkpoint.plan_fusion(base, sft, fusion)
    if plan.adapter:
        raise InputError("--sft", "a full checkpoint to measure drift in", "a LoRA adapter", "merge it")
    with checkpoint.bars() as progress:
        drifts = drift_of_each(plan, checkpoint.workers(), progress)
    drifts = by_layer(drifts) if of == "layer" else drifts
    if not drifts:
        raise InputError("--of", "a model with numbered layers", "none", "use tensor")
    # What is all zero in the base is infinitely far from it, however little it is.
    ranked = {name: drift for name, drift in drifts.items() if math.isfinite(drift.relative)}
    if not ranked:
        raise InputError("--base", f"{of}s that are not all zero", "none", "check --base")
    found = furthest(ranked, above)
    setting = alpha_of(plan, found, alpha)
    if as_json:
        # JSON has no infinity, which is the drift of what was all zero in the base.
        relative = {name: x if math.isfinite(x := drift.relative) else None for name, drift in drifts.items()}
        print(json.dumps({"alpha_of": setting, "relative_drift": relative}, indent=2))
        return
    print(setting)
    apart = len(drifts) - len(ranked)
    print(
        f"{len(found)} of {len(drifts)} {of}s: relative drift {drifts[found[-1]].relative:.3%} "
        f"to {drifts[found[0]].relative:.3%}" + (f"; {apart} all zero in the base, not ranked" if apart else ""),
        file=sys.stderr,
    )
