# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Run arms of the study and keep one row for each in ROWS/seed<N>.jsonl: one that was stopped goes on where it was.

python study.py --seeds 2 3 4 --arms main --models OUT --rows OUT/rows         (models: ../quickstart/make_models.py)
"""

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from arms import ARMS, DEMONSTRATIONS, MAIN, VARIANTS, Arm
from evaluate import evaluate
from grpo import RL, train
from nav_task import demonstrations, eval_problems
from settings import Settings, models_dir
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from rejuv_plugin.checkpoint import apply, plan_fusion, plan_reset, read_checkpoint, read_inputs
from rejuv_plugin.config import FusionConfig, ResetConfig
from rejuv_plugin.neurons.reset_set import ResetSet, shares
from rejuv_plugin.probe.calibration import write_pairs
from rejuv_plugin.probe.measure import measure
from rejuv_plugin.probe.prompts import Prompts
from rejuv_plugin.probe.sample import sample_pairs

SETTINGS = Settings()

# Makes the checkpoint of an arm: (arm, models of the seed, seed, a directory to write in).
Make = Callable[[Arm, Path, int, Path], tuple[Path, ResetSet | None]]
Row = dict[str, Any]


def load(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A checkpoint in float32, and its tokenizer."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32), AutoTokenizer.from_pretrained(path)


def write_calibration(arm: Arm, models: Path, seed: int, path: Path) -> None:
    """The arm's calibration pairs as jsonl."""
    if arm.calibration == DEMONSTRATIONS:
        pairs = [{"prompt": p, "response": r} for p, r in demonstrations(SETTINGS, seed)[: arm.examples]]
    else:
        sft = read_checkpoint(str(models / arm.start), "sft")
        prompts = Prompts((str(models / "data" / "train.parquet"),), "prompt", None, RL.max_response, "prompts")
        pairs = sample_pairs(sft, prompts, arm.examples, seed, torch.device("cpu"))
    write_pairs(pairs, path)


def make_start(arm: Arm, models: Path, seed: int, directory: Path) -> tuple[Path, ResetSet | None]:
    """The checkpoint that RL starts from, made by the plugin's own functions, and the neurons that were reset."""
    if arm.start != "sft64" or (arm.alpha == 1.0 and not arm.reset):
        return models / arm.start, None
    plan, found = plan_fusion(str(models / "base"), str(models / "sft64"), FusionConfig(arm.alpha)), None
    if arm.reset:
        calibration = directory / "calibration.jsonl"
        write_calibration(arm, models, seed, calibration)
        settings = ResetConfig(calibration=str(calibration), seed=seed, **arm.reset)
        found = measure(plan, settings, read_inputs(plan), "--")
        plan = plan_reset(plan, found, settings.omega, "--calibration")
    apply(plan, directory / "start")
    return directory / "start", found


def measure_policy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, dict[str, float]]:
    """Accuracy, entropy and groups with a gradient on the held-out problems, in and out of distribution."""
    return {
        source: asdict(evaluate(model, tokenizer, problems)) for source, problems in eval_problems(SETTINGS).items()
    }


def run_arm(
    name: str, arm: Arm, seed: int, models: Path, rl: RL, settings: Settings = SETTINGS, make: Make = make_start
) -> Row:
    """One row: an arm of one seed, before and after RL. ``make`` makes the checkpoint that RL starts from."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        path, found = make(arm, models, seed, Path(directory))
        model, tokenizer = load(path)
    before = measure_policy(model, tokenizer)
    started = time.monotonic()
    curve = train(model, tokenizer, settings, rl, seed)
    rl_seconds = time.monotonic() - started
    return {
        "arm": name,
        "seed": seed,
        "setup": setup_of(arm, rl, settings),
        "share_reset": shares(found, dict.fromkeys(found.modules, "all"))["all"] if found else 0.0,
        "statistics": dict(found.statistics) if found else {},
        "before": before,
        "after": measure_policy(model, tokenizer),
        "curve": curve,
        "rl_seconds": round(rl_seconds, 1),
        "seconds": round(time.monotonic() - began, 1),
    }


def setup_of(arm: Arm, rl: RL, settings: Settings = SETTINGS) -> str:
    """What a row of an arm depends on beside the seed, as a short hash: rows of two setups are never mixed."""
    content = {"models": settings.fingerprint(), "arm": asdict(arm) | {"says": ""}, "rl": asdict(rl)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def bits_of(models: Path) -> str:
    """The weights made for a seed, as a short hash. Their last bits depend on the machine that trained them, and where
    RL ends depends on their last bits: starts are compared within one set of models only."""
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(models.glob("*/model.safetensors"))]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:12]


def rounded(value: object) -> object:
    """Floats to six significant digits, throughout: rows are kept in git, and no level is known better."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else value


def run_missing(
    arms: Mapping[str, Arm],
    seed: int,
    models: Path,
    rows: Path,
    rl: RL,
    settings: Settings = SETTINGS,
    run: Callable[..., Row] = run_arm,
) -> None:
    """Run the arms of a seed that ``rows`` does not have yet, and add their rows to it, one by one.

    ``run`` is called as ``run_arm``. Rows of the same seed from other models end it.
    """
    read, bits = read_rows(rows), bits_of(models)
    if any(row["seed"] == seed and row.get("weights") != bits for row in read):
        raise SystemExit(
            f"{rows}: expected rows of the models in {models}, got some of others. Fix: another directory."
        )
    done = {(row["seed"], row["arm"], row["setup"]) for row in read}
    for name, arm in arms.items():
        if (seed, name, setup_of(arm, rl, settings)) in done:
            continue
        row = run(name, arm, seed, models, rl, settings) | {"weights": bits}
        with rows.open("a") as file:
            file.write(json.dumps(rounded(row)) + "\n")
        inside, outside = (
            f"{row['before'][k]['pass_at_1']:.3f} -> {row['after'][k]['pass_at_1']:.3f}" for k in row["after"]
        )
        reset = f"reset {row['share_reset']:.1%}, {row['seconds']} s"
        print(f"seed {seed} {name:15} in {inside}, out {outside}, {reset}", flush=True)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; a last line that a killed run left unfinished is taken out of it."""
    if not path.exists():
        return []
    whole, _, rest = path.read_text().rpartition("\n")
    if rest:
        path.write_text(whole + "\n" if whole else "")
    return [json.loads(line) for line in whole.splitlines()]


def read_seeds(directory: Path) -> list[Row]:
    """The rows of all ``seed<N>.jsonl`` there."""
    return [row for path in sorted(directory.glob("seed*.jsonl")) for row in read_rows(path)]


def wanted(names: list[str]) -> list[str]:
    """Arms by name; ``main`` and ``variants`` stand for groups."""
    groups = {"main": list(MAIN), "variants": list(VARIANTS)}
    found = [arm for name in names for arm in groups.get(name, [name])]
    if unknown := sorted(set(found) - set(ARMS)):
        raise SystemExit(f"--arms: expected main, variants or some of {', '.join(ARMS)}, got {', '.join(unknown)}")
    return list(dict.fromkeys(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--arms", nargs="+", default=["main"])
    parser.add_argument("--models", type=Path, required=True, help="the --out that make_models.py was given")
    parser.add_argument("--rows", type=Path, required=True, help="directory; rows that it has are not run again")
    parser.add_argument("--steps", type=int, default=RL.steps)
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    arms, rl = wanted(args.arms), RL(steps=args.steps)
    args.rows.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        chosen = {name: ARMS[name] for name in arms}
        run_missing(chosen, seed, models_dir(args.models, seed, SETTINGS), args.rows / f"seed{seed}.jsonl", rl)


if __name__ == "__main__":
    main()
