# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The console command ``rejuv``: parse, call, print.

Exit codes: 0 done, 2 bad input (one line on stderr, nothing written), 1 anything else.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import __version__
from .config import FusionConfig
from .errors import InputError

if TYPE_CHECKING:
    from .checkpoint import Plan

# Plain tracebacks: a failure that is not the user's should be easy to paste into an issue.
app = typer.Typer(
    help="Rejuvenate over-trained SFT checkpoints before RL (arXiv 2606.09932).",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main(argv: list[str] | None = None) -> None:
    """Run the console command and exit."""
    try:
        app(args=argv, prog_name="rejuv")
    except InputError as error:
        print(f"rejuv: {error}", file=sys.stderr)
        sys.exit(2)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rejuv {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def apply(
    base: Annotated[str, typer.Option(help="Model the SFT checkpoint started from: directory or hub name.")],
    sft: Annotated[str, typer.Option(help="Over-trained SFT checkpoint: directory or hub name.")],
    output: Annotated[Path, typer.Option(help="Directory to write; must be new or empty.")],
    alpha: Annotated[
        float,
        typer.Option(help="Weight of the SFT checkpoint, 0 to 1: 1 is the SFT checkpoint bit for bit, 0 the base."),
    ] = FusionConfig.alpha,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all inputs, print the plan, write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan or the manifest as JSON on stdout.")] = False,
) -> None:
    """Write a rejuvenated checkpoint: alpha * SFT + (1 - alpha) * base, exact in every bit.

    The output is the SFT checkpoint with other weights: same files, dtypes, config, tokenizer and chat template, and
    rejuvenation.json, which says where it comes from. Give it to the RL trainer in place of the SFT checkpoint.

    The paper uses --alpha 0.5 and sweeps 0.40 to 0.60: smaller forgets more of SFT and favours out-of-distribution
    tasks, larger keeps more of it and favours in-distribution ones. Weights must be safetensors; pickles are never
    loaded.

    Examples:

        rejuv apply --base Qwen/Qwen2.5-0.5B --sft runs/sft/epoch_32 --output runs/rejuvenated --dry-run

        rejuv apply --base Qwen/Qwen2.5-0.5B --sft runs/sft/epoch_32 --output runs/rejuvenated --alpha 0.45
    """
    fusion = _fusion(alpha)
    # Imported late: torch takes seconds, and --help must not wait for it.
    from . import checkpoint
    from .checkpoint.target import check_output

    plan = checkpoint.plan_fusion(base, sft, fusion)
    if dry_run:
        check_output(plan, output, "--output")
        _print_plan(_plan_record(plan, output), as_json)
        return
    with checkpoint.bars() as progress:
        manifest = checkpoint.apply(plan, output, progress=progress)
    if as_json:
        print(json.dumps(manifest, indent=2))
    else:
        print(_summary(manifest, output))


@app.command()
def status() -> None:
    """Say whether verl, in this environment, loads the plugin; run it where your workers run.

    Exit code 0 when it does, 1 when it does not.
    """
    from .integrations.verl.status import report

    lines, loaded = report()
    print("\n".join(lines))
    raise typer.Exit(0 if loaded else 1)


def _fusion(alpha: float) -> FusionConfig:
    try:
        return FusionConfig(alpha=alpha)
    except InputError as error:
        raise InputError("--alpha", error.expected, error.got, error.fix) from None


def _plan_record(plan: "Plan", output: Path) -> dict[str, Any]:
    return {
        "base": str(plan.base.root),
        "sft": str(plan.sft.root),
        "output": str(output.resolve()),
        "alpha": plan.fusion.alpha,
        "tensors_fused": len(plan.fused),
        "parameters_fused": plan.parameters_fused,
        "tensors_copied": len(plan.copied),
        "copied_names": [operation.name for operation in plan.copied],
        "weight_files": len(plan.sft.headers),
        "weight_bytes": plan.weight_bytes,
        "files_copied": list(plan.sft.side_files),
        "output_bytes": plan.output_bytes,
    }


def _print_plan(record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(record, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("plan", "value", title="Dry run: inputs are good, nothing was written")
    for name, value in record.items():
        shown = ", ".join(value) if isinstance(value, list) else f"{value:,}" if isinstance(value, int) else str(value)
        table.add_row(name, shown)
    Console().print(table)


def _summary(manifest: dict[str, Any], output: Path) -> str:
    drift = manifest["drift_from_base"]
    sft, fused = (drift[side]["relative_l2"] for side in ("sft", "output"))
    moved = "unknown (weights with NaN or infinity)" if None in (sft, fused) else f"{sft:.3%} -> {fused:.3%}"
    return (
        f"Rejuvenated with alpha {manifest['settings']['fusion']['alpha']}: {manifest['tensors']['fused']} tensors "
        f"({manifest['parameters_fused']:,} parameters) fused, {manifest['tensors']['copied']} copied, drift from base "
        f"{moved}, {manifest['seconds']} s. Written to {output}; where it comes from: {output / 'rejuvenation.json'}"
    )
