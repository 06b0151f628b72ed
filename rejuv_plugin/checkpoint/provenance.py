# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Where a rejuvenated checkpoint comes from: its content address, and the manifest that is written beside it."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import FusionConfig
from ..neurons.modules import modules_of
from ..neurons.reset_set import shares
from ..ops.drift import Drift
from .compatible import same_checkpoint
from .digest import digest_files, sha256_file
from .headers import Header
from .layout import Checkpoint
from .pieces import ALGORITHM, Digests, Pieces
from .plan import Plan, Reset
from .progress import Progress
from .stream import Shard

# Of the manifest and of what the same inputs and settings give: a change of either makes older outputs another thing.
FORMAT = 2
_END_BYTES = 64 << 10


@dataclass(frozen=True)
class Inputs:
    """Everything the output's bytes depend on, by content: hexadecimal digests by file name, see `pieces`."""

    base: Mapping[str, str]
    """The base's weight files."""
    sft: Mapping[str, str]
    """The SFT checkpoint's weight files and the files that are copied from it."""
    base_config: str
    """SHA-256 of the base's config.json. The output's bytes do not depend on it; what the base computes when it is run
    does."""


def read_inputs(plan: Plan, memo: Path | None = None, progress: Progress | None = None) -> Inputs:
    """Hash all inputs of ``plan``; see `digest.digest_files` for ``memo`` and ``progress``.

    Raises:
        InputError: base and SFT hold the same bytes under two paths.
    """
    files: dict[Path, Header | None] = dict.fromkeys(plan.sft_paths.values())
    for side in (plan.base, plan.sft):
        files |= {side.root / file: header for file, header in side.headers.items()}
    digests = digest_files(files, memo, progress)
    found = Inputs(
        {file: digests[plan.base.root / file] for file in sorted(plan.base.headers)},
        {name: digests[path] for name, path in sorted(plan.sft_paths.items())},
        _config_digest(plan.base),
    )
    check_distinct(plan, found)
    return found


def inputs_of(plan: Plan, shards: Sequence[Shard], outputs: Mapping[str, str]) -> Inputs:
    """The digests of the inputs, from what was hashed as it was read; what nobody had to read is read now.

    Args:
        plan: what was done.
        shards: all weight files of the output.
        outputs: digests of what was written, by name; the side files' are also those of what they were copied from.

    Raises:
        OSError: an input cannot be read.
    """
    pieces = {file: Pieces(header) for file, header in plan.base.headers.items()}
    digests = {file: Digests(of_file) for file, of_file in pieces.items()}
    read = {name: of_base for shard in shards for name, of_base in shard.base.items()}
    for operation in plan.fused:
        if operation.name in read:
            file = operation.base.file
            digests[file].put(pieces[file].first[operation.base.name], read[operation.name])
    for file, digest in digests.items():
        digest.complete(plan.base.root / file)
    base = {file: digests[file].file for file in sorted(digests)}
    sft = {shard.file: shard.sft for shard in shards}
    if plan.adapter:
        files = {plan.sft_paths[name]: plan.sft.headers.get(name) for name in plan.sft_paths.keys() - plan.side_files}
        sft = {path.name: digest for path, digest in digest_files(files).items()}
    sft |= {name: outputs[name] for name in plan.side_files}
    return Inputs(base, {file: sft[file] for file in sorted(sft)}, _config_digest(plan.base))


def _config_digest(checkpoint: Checkpoint) -> str:
    return sha256_file(checkpoint.root / "config.json")


def check_distinct(plan: Plan, inputs: Inputs) -> None:
    """Raise `InputError` for a base and an SFT checkpoint that are the same bytes under two paths."""
    if inputs.base == {file: inputs.sft[file] for file in plan.sft.headers}:
        raise same_checkpoint(plan.base, f"{plan.base.root}, byte for byte the weights of {plan.sft.key}")


def looks_like_one(plan: Plan) -> bool:
    """Whether base and SFT may be the same bytes under two paths: equal headers, and equal ends of every file."""
    if list(plan.base.headers) != list(plan.sft.headers):
        return False
    return all(
        plan.base.headers[file].prefix == header.prefix
        and _end(plan.base.root / file, header.size) == _end(plan.sft.root / file, header.size)
        for file, header in plan.sft.headers.items()
    )


def _end(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, size - _END_BYTES))
        return file.read(_END_BYTES)


def input_digests(inputs: Inputs) -> dict[str, str]:
    """One SHA-256 for each of ``base`` and ``sft``, over the digests of its files: what a reset set was measured on."""
    return {
        side: hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
        for side, files in (("base", inputs.base), ("sft", inputs.sft))
    }


def content_key(plan: Plan, inputs: Inputs) -> str:
    """Content address of the output: 64 hexadecimal digits, equal for equal settings and equal input bytes."""
    content = {"format": FORMAT, "settings": settings(plan), "base": dict(inputs.base), "sft": dict(inputs.sft)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def settings(plan: Plan) -> dict[str, Any]:
    """The settings that decide the output's bytes. A reset counts by its neurons, however they were found."""
    defaults = FusionConfig()
    # Settings that came later count only where they are used, so that they leave older keys as they are.
    fusion = {
        name: value
        for name, value in asdict(plan.fusion).items()
        if name == "alpha" or value != getattr(defaults, name)
    }
    found: dict[str, Any] = {"fusion": fusion}
    if plan.fusion.method != "linear":
        # Another default later, or another version of the library, is not the same output.
        fusion["density"] = plan.fusion.density
        found["mergekit"] = version("mergekit")
    if plan.reset:
        found["reset"] = {"omega": plan.reset.omega, "set": plan.reset.chosen.digest}
    return found


def manifest(
    plan: Plan,
    inputs: Inputs,
    outputs: Mapping[str, str],
    shards: Sequence[Shard],
    seconds: float,
) -> dict[str, Any]:
    """The content of ``rejuvenation.json``.

    Args:
        plan: what was done.
        inputs: digests of what was read.
        outputs: hexadecimal digest of each file written, by name.
        shards: the weight files, in their order.
        seconds: wall time of this run.
    """
    sizes = {file: header.size for file, header in plan.layout.headers.items()}
    sizes |= {name: path.stat().st_size for name, path in plan.side_files.items()}
    return {
        "format": FORMAT,
        "key": content_key(plan, inputs),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"rejuv-plugin": __version__, "torch": version("torch")},
        "settings": settings(plan),
        "inputs": {
            "base": _input(plan.base, inputs.base, {file: plan.base.root / file for file in plan.base.headers}),
            "sft": _input(plan.sft, inputs.sft, plan.sft_paths),
        },
        "digest": ALGORITHM,
        "outputs": {file: {"digest": outputs[file], "size": sizes[file]} for file in sorted(outputs)},
        "tensors": {
            "fused": len(plan.fused),
            "copied": len(plan.copied),
            "copied_names": [operation.name for operation in plan.copied],
            **_by_reason(plan),
        },
        "parameters_fused": plan.parameters_fused,
        **({"reset": _reset(plan, plan.reset, inputs)} if plan.reset else {}),
        "drift_from_base": {
            "sft": _relative([shard.drift_sft for shard in shards]),
            "output": _relative([shard.drift_output for shard in shards]),
        },
        "seconds": round(seconds, 3),
    }


def _reset(plan: Plan, reset: Reset, inputs: Inputs) -> dict[str, Any]:
    chosen = reset.chosen
    # A set that was made elsewhere may not say.
    others = [side for side, digest in input_digests(inputs).items() if chosen.inputs.get(side, digest) != digest]
    layers = {module.name: module.layer for module in modules_of(plan.layout.config, plan.layout.shapes, plan.sft.key)}
    return {
        "omega": reset.omega,
        "set": chosen.digest,
        "neurons": sum(len(module.indices) for module in chosen.modules.values()),
        "parameters": plan.parameters_reset,
        "share": shares(chosen, dict.fromkeys(chosen.modules, "all"))["all"],
        "share_by_layer": shares(chosen, layers),
        "share_by_module": shares(chosen),
        **({"measured_on_another": others} if others else {}),
        "selection": {"settings": dict(chosen.settings), "inputs": dict(chosen.inputs), **chosen.statistics},
    }


def _by_reason(plan: Plan) -> dict[str, Any]:
    """What is not as one would expect: tensors that keep their bits for another reason than their dtype, rows that do,
    and tensors with an alpha of their own."""
    found: dict[str, Any] = {}
    for reason, entry in (("only in SFT", "only_in_sft"), ("left out", "left_out")):
        if names := [operation.name for operation in plan.copied if operation.why == reason]:
            found[entry] = names
    kept = {op.name: op.sft.shape[0] - op.base.shape[0] for op in plan.fused if op.common < op.sft.elements}
    if kept:
        found["rows_kept"] = kept
    if plan.fusion.alpha_of:
        found["by_alpha"] = {str(alpha): count for alpha, count in plan.alphas.items()}
    if plan.adapter:
        found["adapter"] = {"low_rank": len(plan.adapter.added), "replaced": len(plan.adapter.replaced)}
    return found


def _input(checkpoint: Checkpoint, digests: Mapping[str, str], paths: Mapping[str, Path]) -> dict[str, Any]:
    return {
        "given": checkpoint.given,
        "path": str(checkpoint.root),
        "files": {file: {"digest": digest, "size": paths[file].stat().st_size} for file, digest in digests.items()},
    }


def _relative(parts: Sequence[Mapping[str, Drift]]) -> dict[str, Any]:
    groups: dict[str, Drift] = {}
    for part in parts:
        for group, drift in part.items():
            groups[group] = groups.get(group, Drift()) + drift
    return {
        "relative_l2": _number(sum(groups.values(), Drift()).relative),
        "by_group": {group: _number(drift.relative) for group, drift in groups.items()},
    }


def _number(x: float) -> float | None:
    # JSON has no NaN or infinity; weights that give one are still written, as the contract says.
    return x if math.isfinite(x) else None
