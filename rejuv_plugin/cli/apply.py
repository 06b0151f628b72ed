# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""``rejuv apply``: one rejuvenated checkpoint."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..config import FusionConfig, ResetConfig
from ..errors import InputError
from ..report.apply import measured_on_another, not_finite, plan_record, print_plan, summary, unrelated
from .options import PATH, as_options

if TYPE_CHECKING:
    from ..checkpoint import Plan
    from ..checkpoint.progress import Progress


@click.command(short_help="Write a checkpoint: alpha * SFT + (1 - alpha) * base.")
@click.option("--base", required=True, help="Model the SFT checkpoint started from: directory or hub name.")
@click.option("--sft", required=True, help="Over-trained SFT checkpoint: directory or hub name.")
@click.option("--output", type=PATH, required=True, help="Directory to write; must be new or empty.")
@click.option(
    "--alpha",
    default=FusionConfig.alpha,
    help="Weight of the SFT checkpoint, 0 to 1: 1 is the SFT checkpoint bit for bit, 0 the base. rejuv tune measures "
    "which.",
)
@click.option(
    "--alpha-of",
    default=FusionConfig.alpha_of,
    help='Tensors with another alpha, "PATTERN:ALPHA ..."; the last that matches counts.',
)
@click.option(
    "--towards",
    default=FusionConfig.towards,
    help="What matrices shrink towards: base; or zero, which leaves norms and biases as they are.",
)
@click.option(
    "--noise",
    default=FusionConfig.noise,
    help="Gaussian noise on the fused matrices: its std over that of fresh weights; 0: none.",
)
@click.option("--noise-seed", default=FusionConfig.noise_seed, help="Of --noise and --method dare.")
@click.option(
    "--method",
    default=FusionConfig.method,
    help="linear: fusion; ties, dare: of fewer changes, by mergekit, to compare with.",
)
@click.option("--density", default=FusionConfig.density, help="Share of the changes that --method ties and dare keep.")
@click.option("--only-tensors", default="*", help="Tensors to fuse: shell patterns; others keep the SFT's bits.")
@click.option("--exclude-tensors", default="", help="Tensors not to fuse, as --only-tensors.")
@click.option(
    "--grown-vocabulary",
    default=FusionConfig.grown_vocabulary,
    help="Other numbers of embedding rows: refuse, or keep the SFT's own rows as they are.",
)
@click.option(
    "--reset-ratio",
    default=ResetConfig.ratio,
    help="Share of each module's neurons to reset for each position; 0: no reset. Paper: 0.01.",
)
@click.option(
    "--calibration",
    default=ResetConfig.calibration,
    help="Parquet or jsonl of prompt and response, or of messages; with --reset-ratio.",
)
@click.option(
    "--omega", default=ResetConfig.omega, help="Weight of the base on reset neurons: 1 is the base, bit for bit."
)
@click.option(
    "--positions",
    default=ResetConfig.positions,
    help="Response positions kept for each example, where SFT moved the entropy most.",
)
@click.option("--max-tokens", default=ResetConfig.max_tokens, help="Longer calibration dialogues are cut here.")
@click.option(
    "--gradient",
    default=ResetConfig.gradient,
    help="Score rows by the gradient of the sum of an example's kept logits, or of each alone.",
)
@click.option(
    "--rule",
    default=ResetConfig.rule,
    help="union of the top neurons at each position (the paper), or aggregate: of the mean score.",
)
@click.option("--cap", default=ResetConfig.cap, help="Largest share of a module that may be reset.")
@click.option("--select", default=ResetConfig.select, help="top; or a control of equal size: bottom, random.")
@click.option("--ranking", default=ResetConfig.ranking, help="Rank scores by absolute or signed value.")
@click.option(
    "--include", default=ResetConfig.include, help="Modules to reset in: shell patterns, separated by blanks."
)
@click.option("--exclude", default=ResetConfig.exclude, help="Modules to leave out.")
@click.option("--seed", default=ResetConfig.seed, help="Of --select random.")
@click.option(
    "--device",
    default=ResetConfig.device,
    help="Where the models run while neurons are found: cpu, cuda, or auto: a GPU if there is.",
)
@click.option(
    "--reset-set",
    default=ResetConfig.set_path,
    help="Use the neurons of this file, in place of --reset-ratio and --calibration.",
)
@click.option("--save-reset-set", type=PATH, help="Also write the reset neurons to this file, for --reset-set.")
@click.option("--workers", default=0, help="Threads that fuse; 0: one for each core, at most 8.")
@click.option("--ray", is_flag=True, help="Spread the files over the Ray cluster of this machine: a shared disk.")
@click.option("--resume", is_flag=True, help="Go on where a killed run with the same inputs and settings was.")
@click.option("--dry-run", is_flag=True, help="Check all inputs, print the plan, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan or the manifest as JSON on stdout.")
def apply(
    base: str,
    sft: str,
    output: Path,
    save_reset_set: Path | None,
    workers: int,
    ray: bool,
    resume: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write a rejuvenated checkpoint: alpha * SFT + (1 - alpha) * base, exact in every bit.

    The output is the SFT checkpoint with other weights: same files, dtypes, config, tokenizer and chat template, and
    rejuvenation.json, which says where it comes from. Give it to the RL trainer in place of the SFT checkpoint.

    The paper uses --alpha 0.5 and sweeps 0.40 to 0.60: smaller forgets more of SFT and favours out-of-distribution
    tasks, larger keeps more of it and favours in-distribution ones. Weights must be safetensors; pickles are never
    loaded.

    With --reset-ratio and --calibration, the neurons that carry what SFT changed most (measured with both models on the
    calibration data, in float32) go back to the base: rows of q, k, v, gate, up, columns of o, down. A dry run checks
    all inputs but does not run the models.

    \b
    Examples:
      rejuv apply --base Qwen/Qwen2.5-0.5B --sft runs/sft/epoch_32 --output runs/rejuvenated --dry-run
      rejuv apply --base Qwen/Qwen2.5-0.5B --sft runs/sft/epoch_32 --output runs/rejuvenated --alpha 0.45
      rejuv apply --base Qwen/Qwen2.5-0.5B --sft runs/sft/epoch_32 --output runs/rejuvenated --reset-ratio 0.01 \\
          --calibration data.parquet --save-reset-set runs/neurons.json
      rejuv apply --base Qwen/Qwen2.5-0.5B --sft runs/sft/epoch_32 --output runs/other --alpha 0.4 \\
          --reset-set runs/neurons.json
    """
    fusion, reset = as_options(options, FusionConfig, ResetConfig)
    if reset.ratio and not reset.calibration:
        raise InputError(
            "--calibration", "prompts and responses, with --reset-ratio", "none", "make some with rejuv calibrate"
        )
    if save_reset_set and not reset.ratio:
        raise InputError("--save-reset-set", "a reset ratio above 0", "0", "add --reset-ratio 0.01 --calibration FILE")
    if workers < 0:
        raise InputError("--workers", "a number of threads, or 0", str(workers), "leave it out")
    # Imported late: torch takes seconds, and --help must not wait for it.
    from .. import checkpoint
    from ..checkpoint import reset_file
    from ..checkpoint.target import check_new

    plan = checkpoint.plan_fusion(base, sft, fusion)
    if plan.adapter and reset.ratio:
        raise InputError(
            "--sft", "a full checkpoint to measure neurons in", "a LoRA adapter", "merge it, or fuse alone"
        )
    checkpoint.prepare(plan, output, "--output", resume)
    if save_reset_set:
        if save_reset_set.resolve().is_relative_to(output.resolve()):
            raise InputError(
                "--save-reset-set", f"a file outside of --output ({output})", str(save_reset_set), "give another path"
            )
        fix = "use it (--reset-set), remove it, or give another path"
        check_new(save_reset_set, "--save-reset-set", fix)
    if reset.set_path:
        plan = checkpoint.plan_reset(plan, reset_file.load(reset.set_path, "--reset-set"), reset.omega, "--reset-set")
    elif reset.wanted:
        from ..probe.load import device_of
        from ..probe.measure import check_inputs

        device_of(reset.device, "--device")
        check_inputs(plan, reset, "--")
    if dry_run:
        print_plan(plan_record(plan, reset, output), as_json)
        return
    shards = checkpoint.local(workers or checkpoint.workers())
    if ray:
        try:
            from ..integrations import ray_shards
        except ImportError:
            raise InputError(
                "--ray", "ray, to spread files", "an environment without it", "pip install 'rejuv-plugin[verl]'"
            ) from None
        ray_shards.connect("--ray")
        shards = ray_shards.over_cluster()
    finished = resume and output.is_dir() and any(output.iterdir())
    with checkpoint.bars() as progress:
        inputs = None
        if reset.ratio:
            from ..probe.measure import measure

            inputs = checkpoint.read_inputs(plan, progress=progress)
            found = measure(plan, reset, inputs, "--", progress)
            if save_reset_set:
                # Before what can fail for want of room: the measurement is the longer part.
                reset_file.save(found, save_reset_set)
            plan = checkpoint.plan_reset(plan, found, reset.omega, "--calibration")
        manifest = checkpoint.apply(plan, output, inputs=inputs, progress=progress, resume=resume, shards=shards)
        entropy = _entropies(plan, reset, output, progress) if reset.ratio else {}
    if as_json:
        print(json.dumps(manifest | ({"entropy": entropy} if entropy else {}), indent=2))
    else:
        print(("Was there already, whole. " if finished else "") + summary(manifest, entropy, output))
    for warning in (unrelated(manifest["drift_from_base"]["sft"]["relative_l2"]), measured_on_another(manifest)):
        if warning:
            print(f"rejuv: warning: {warning}", file=sys.stderr)
    if unknown := not_finite(manifest):
        print(f"rejuv: warning: NaN or infinity in {unknown}: RL will not get far from here", file=sys.stderr)


def _entropies(plan: "Plan", reset: ResetConfig, output: Path, progress: "Progress") -> dict[str, float | None]:
    """Mean token entropy in nats on the calibration data, before and after."""
    from ..probe.measure import entropy_of

    assert plan.reset is not None
    found = {side: values["mean"] for side, values in plan.reset.chosen.statistics["entropy"].items()}
    try:
        found["output"] = entropy_of(output, reset, key="--", start_key="--output", progress=progress)
    except InputError as error:
        # The checkpoint is written and as it was asked for: what cannot be measured of it is said, not refused.
        print(f"rejuv: warning: {error}", file=sys.stderr)
        found["output"] = None
    return found
