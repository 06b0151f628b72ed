# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A plan and a manifest in words."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import ResetConfig

if TYPE_CHECKING:
    from ..checkpoint import Plan

UNRELATED = 0.9
"""Relative L2 drift from which on a base is doubted: of models that were trained apart it is near the square root of
2, as their weights have nothing to do with each other; SFT, however long, is a part of that."""


def plan_record(plan: "Plan", reset: ResetConfig, output: Path) -> dict[str, Any]:
    """What a dry run says of a plan; ``reset`` may ask for neurons that are yet to be measured."""
    return {
        "base": str(plan.base.root),
        "sft": str(plan.sft.root),
        "output": str(output.resolve()),
        "alpha": plan.fusion.alpha,
        "alpha_of": [f"{op.name}:{op.alpha}" for op in plan.fused if op.alpha != plan.fusion.alpha],
        "towards": plan.fusion.towards,
        "noise": plan.fusion.noise,
        "method": plan.fusion.method,
        "reset": _planned_reset(plan, reset),
        "tensors_fused": len(plan.fused),
        "parameters_fused": plan.parameters_fused,
        "tensors_copied": len(plan.copied),
        "copied_names": [operation.name for operation in plan.copied],
        "weight_files": len(plan.layout.headers),
        "weight_bytes": plan.weight_bytes,
        "files_copied": list(plan.side_files),
        "output_bytes": plan.output_bytes,
    }


def _planned_reset(plan: "Plan", reset: ResetConfig) -> str:
    if plan.reset:
        return f"{plan.parameters_reset:,} parameters, omega {reset.omega}"
    return f"neurons to be measured, ratio {reset.ratio}, omega {reset.omega}" if reset.wanted else "none"


def print_plan(record: dict[str, Any], as_json: bool) -> None:
    """Print what a dry run found, as a table or as JSON."""
    if as_json:
        print(json.dumps(record, indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    from .console import show

    table = Table("plan", "value", title="Dry run: inputs are good, nothing was written")
    for name, value in record.items():
        shown = ", ".join(value) if isinstance(value, list) else f"{value:,}" if isinstance(value, int) else str(value)
        # Not markup, which brackets in a path would be.
        table.add_row(name, Text(shown))
    show(table)


def alpha_in_words(manifest: dict[str, Any]) -> str:
    """``0.5``, and what else was done in parentheses: ``0.5 (of 2 tensors 0.3, towards zero, noise 0.1)``."""
    fusion = manifest["settings"]["fusion"]
    counts = manifest["tensors"].get("by_alpha", {}).items()
    said = [f"of {count} tensors {other}" for other, count in counts if float(other) != fusion["alpha"]]
    said += [
        f"{setting} {fusion[setting]}" for setting in ("towards", "noise", "method", "density") if setting in fusion
    ]
    return f"{fusion['alpha']:g} ({', '.join(said)})" if said else f"{fusion['alpha']:g}"


def not_finite(manifest: dict[str, Any]) -> str:
    """The parts of a checkpoint whose weights hold NaN or infinity, in words; empty if none does."""
    drift = manifest["drift_from_base"]["output"]
    if drift["relative_l2"] is not None:
        return ""
    return ", ".join(group for group, value in drift["by_group"].items() if value is None)


def unrelated(drift: float | None) -> str:
    """A warning about a base that the SFT checkpoint does not seem to come of; empty where it does.

    Args:
        drift: relative L2 distance of the SFT checkpoint from the base; None if it is not finite.
    """
    if drift is None or drift < UNRELATED:
        return ""
    return (
        f"the SFT checkpoint is as far from the base ({drift:.0%}) as models are that were trained apart: is this the "
        "base that SFT started from?"
    )


def measured_on_another(manifest: dict[str, Any]) -> str:
    """A warning about a reset set that comes of other checkpoints than these; empty where it does not."""
    sides = manifest.get("reset", {}).get("measured_on_another", [])
    names = " and ".join({"base": "base", "sft": "SFT checkpoint"}[side] for side in sides)
    return names and f"the reset set was measured on another {names}: its neurons say nothing of this one for certain"


def summary(manifest: dict[str, Any], entropy: Mapping[str, float | None], output: Path) -> str:
    """One line about what was written.

    Args:
        manifest: fields: `checkpoint.provenance.manifest`.
        entropy: mean token entropy in nats by side, where it was measured.
        output: the directory.
    """
    drift = manifest["drift_from_base"]
    sft, fused = (drift[side]["relative_l2"] for side in ("sft", "output"))
    moved = "unknown (weights with NaN or infinity)" if None in (sft, fused) else f"{sft:.3%} -> {fused:.3%}"
    reset = manifest.get("reset")
    how = f", {reset['neurons']:,} neurons ({reset['share']:.2%}) reset with omega {reset['omega']:g}" if reset else ""
    gigabytes = sum(file["size"] for file in manifest["outputs"].values()) / 1e9
    rate = f", {1000 * gigabytes / manifest['seconds']:,.0f} MB/s" if manifest["seconds"] else ""
    said = ", ".join(f"{value:.3f} {side}" for side, value in entropy.items() if value is not None)
    sure = f"; token entropy in nats {said}" if said else ""
    copied = manifest["tensors"]["copied"]
    of_fused = " of what was fused" if copied else ""
    return (
        f"Rejuvenated with alpha {alpha_in_words(manifest)}: {manifest['tensors']['fused']} tensors "
        f"({manifest['parameters_fused']:,} parameters) fused{how}, {copied} copied, drift{of_fused} "
        f"from base {moved}{sure}, {gigabytes:.2f} GB in {manifest['seconds']} s{rate}. Written to {output}; where "
        f"it comes from: {output / 'rejuvenation.json'}"
    )
