# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Where a rejuvenated checkpoint comes from: its content address, and the manifest that is written beside it."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..neurons.modules import modules_of
from ..neurons.reset_set import shares
from ..ops.drift import Drift
from .compatible import same_checkpoint
from .digest import Progress, sha256_files
from .layout import Checkpoint
from .plan import Plan, Reset

# Of the manifest and of what the same inputs and settings give: a change of either makes older outputs another thing.
FORMAT = 1


@dataclass(frozen=True)
class Inputs:
    """Everything the output's bytes depend on, by content: hexadecimal SHA-256 digests by file name."""

    base: Mapping[str, str]
    """The base's weight files."""
    sft: Mapping[str, str]
    """The SFT checkpoint's weight files and the files that are copied from it."""


def read_inputs(plan: Plan, memo: Path | None = None, progress: Progress | None = None) -> Inputs:
    """Hash all inputs of ``plan``; see `digest.sha256_files` for ``memo`` and ``progress``.

    Raises:
        InputError: base and SFT hold the same bytes under two paths.
    """
    base_files, sft_files = tuple(plan.base.headers), (*plan.sft.headers, *plan.sft.side_files)
    paths = [plan.base.root / file for file in base_files] + [plan.sft.root / file for file in sft_files]
    digests = sha256_files(paths, memo, progress)
    base = {file: digests[plan.base.root / file] for file in sorted(base_files)}
    sft = {file: digests[plan.sft.root / file] for file in sorted(sft_files)}
    if base == {file: sft[file] for file in plan.sft.headers}:
        raise same_checkpoint(plan.base, plan.sft, f"{plan.base.root}, byte for byte the weights of {plan.sft.key}")
    return Inputs(base, sft)


def content_key(plan: Plan, inputs: Inputs) -> str:
    """Content address of the output: 64 hexadecimal digits, equal for equal settings and equal input bytes."""
    content = {"format": FORMAT, "settings": settings(plan), "base": dict(inputs.base), "sft": dict(inputs.sft)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def settings(plan: Plan) -> dict[str, Any]:
    """The settings that decide the output's bytes. A reset counts by its neurons, however they were found."""
    found: dict[str, Any] = {"fusion": asdict(plan.fusion)}
    if plan.reset:
        found["reset"] = {"omega": plan.reset.omega, "set": plan.reset.chosen.digest}
    return found


def manifest(
    plan: Plan,
    inputs: Inputs,
    outputs: Mapping[str, str],
    drift_sft: Mapping[str, Drift],
    drift_output: Mapping[str, Drift],
    seconds: float,
) -> dict[str, Any]:
    """The content of ``rejuvenation.json``.

    Args:
        plan: what was done.
        inputs: digests of what was read.
        outputs: hexadecimal SHA-256 of each file written, by name.
        drift_sft: drift of the SFT checkpoint from the base, by layer group.
        drift_output: drift of the output from the base, by layer group.
        seconds: wall time, hashing of the inputs not included.
    """
    sizes = {file: header.size for file, header in plan.sft.headers.items()}
    sizes |= {path.relative_to(plan.sft.root).as_posix(): path.stat().st_size for path in plan.side_paths}
    return {
        "format": FORMAT,
        "key": content_key(plan, inputs),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"rejuv-plugin": __version__, "torch": torch.__version__},
        "settings": settings(plan),
        "inputs": {"base": _input(plan.base, inputs.base), "sft": _input(plan.sft, inputs.sft)},
        "outputs": {file: {"sha256": outputs[file], "size": sizes[file]} for file in sorted(outputs)},
        "tensors": {
            "fused": len(plan.fused),
            "copied": len(plan.copied),
            "copied_names": [operation.name for operation in plan.copied],
        },
        "parameters_fused": plan.parameters_fused,
        **({"reset": _reset(plan, plan.reset)} if plan.reset else {}),
        "drift_from_base": {"sft": _relative(drift_sft), "output": _relative(drift_output)},
        "seconds": round(seconds, 3),
    }


def _reset(plan: Plan, reset: Reset) -> dict[str, Any]:
    chosen = reset.chosen
    layers = {module.name: module.layer for module in modules_of(plan.sft.config, plan.sft.shapes, plan.sft.key)}
    return {
        "omega": reset.omega,
        "set": chosen.digest,
        "neurons": sum(len(module.indices) for module in chosen.modules.values()),
        "parameters": plan.parameters_reset,
        "share": shares(chosen, dict.fromkeys(chosen.modules, "all"))["all"],
        "share_by_layer": shares(chosen, layers),
        "share_by_module": shares(chosen),
        "selection": {"settings": dict(chosen.settings), "inputs": dict(chosen.inputs), **chosen.statistics},
    }


def _input(checkpoint: Checkpoint, digests: Mapping[str, str]) -> dict[str, Any]:
    return {
        "given": checkpoint.given,
        "path": str(checkpoint.root),
        "files": {
            file: {"sha256": digest, "size": (checkpoint.root / file).stat().st_size}
            for file, digest in digests.items()
        },
    }


def _relative(groups: Mapping[str, Drift]) -> dict[str, Any]:
    return {
        "relative_l2": _number(sum(groups.values(), Drift()).relative),
        "by_group": {group: _number(drift.relative) for group, drift in groups.items()},
    }


def _number(x: float) -> float | None:
    # JSON has no NaN or infinity; weights that give one are still written, as the contract says.
    return x if math.isfinite(x) else None
