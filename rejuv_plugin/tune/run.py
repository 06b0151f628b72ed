# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""From two checkpoints, prompts and a reward function to the alpha to start RL from."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import torch

from .. import __version__
from ..checkpoint import Plan, read_inputs
from ..checkpoint.digest import Progress, sha256_files
from ..checkpoint.provenance import Inputs
from ..checkpoint.small_file import write_text
from ..config import TuningConfig
from ..errors import InputError
from ..neurons.reset_set import ResetSet
from ..probe.answers import draw_tasks
from ..probe.load import device_of, load_tokenizer
from ..probe.reward import load_reward
from . import record, with_vllm
from .ask import Asker, Question
from .data import Data
from .objective import objective
from .search import Search, search
from .trace import NAME, Trace, address

FORMAT = 1
RESULT = "tuning.json"


def check(plan: Plan, settings: TuningConfig, data: Data, key: str) -> None:
    """Find what is wrong with the inputs; the reward function's file is run, no weight is read.

    Raises:
        InputError: named ``key`` and a setting, or as `tasks.draw_tasks`.
    """
    if plan.adapter:
        raise InputError(plan.sft.key, "a full checkpoint to fuse in memory", "a LoRA adapter", "merge it first")
    data.check(settings, key)
    if settings.sampler == "vllm" and not with_vllm.installed():
        raise InputError(f"{key}sampler", "vllm in this environment", "none", "use transformers")
    load_reward(data.reward, f"{key}reward", **data.reward_arguments)
    draw_tasks(plan.sft, data.prompts, 1, settings.seed)


def tune(
    plan: Plan,
    settings: TuningConfig,
    data: Data,
    directory: Path,
    *,
    key: str,
    resets: Mapping[float, ResetSet] | None = None,
    rhos: tuple[float, ...] = (0.0,),
    omega: float = 1.0,
    inputs: Inputs | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Search for the best alpha, and rho if there are several.

    Args:
        plan: from `checkpoint.plan_fusion`; its alpha does not matter. If it has a reset, so have all candidates.
        settings: of the search.
        data: prompts and reward.
        directory: there already; ``trace.jsonl`` in it is read and continued, ``tuning.json`` written.
        key: how errors name settings before their own names: ``rejuvenation.tune.`` or ``--``.
        resets: the reset set of each of ``rhos`` above 0.
        rhos: shares of neurons to reset; each is tried with every alpha.
        omega: weight of the base on them.
        inputs: digests of the checkpoints' files, if they are known.
        progress: called with ``("hash", ...)``, then with ``(candidate, answers done, answers in all)``.

    Returns:
        The content of tuning.json.

    Raises:
        InputError: as `check`; a checkpoint, or what is made of it, that cannot be loaded or overflows.
    """
    began, device = time.monotonic(), device_of(settings.device, f"{key}device")
    check(plan, settings, data, key)
    question = _question(plan, settings, data, resets or {}, omega, device, key)
    inputs = inputs or read_inputs(plan, progress=progress)
    content = content_of(plan, settings, data, inputs, resets or {}, omega) | {"sampler": _sampler(question)}
    goal = objective(settings.best_of)
    how = Search(
        settings.grid, rhos, settings.resolution if settings.refines else None, len(question.tasks), settings.seed
    )
    lanes = search(how, goal, Asker(question, Trace(directory / NAME, address(content)), progress))
    found = {
        "format": FORMAT,
        "what": "tuning",
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "machine": _machine(device),
        "seconds": round(time.monotonic() - began, 3),
        "settings": asdict(settings) | {"rho": list(rhos), "omega": omega, "sampler": _sampler(question)},
        "base": {"name": plan.base.label, "path": str(plan.base.root)},
        "sft": {"name": plan.sft.label, "path": str(plan.sft.root)},
        "prompts": {
            "files": list(data.prompts.files),
            "count": len(question.tasks),
            "group": data.group,
            "temperature": data.temperature,
            "max_response": data.prompts.max_response,
            "reward": data.reward,
        },
        "objective": goal.to_json(),
        "choice": record.choice(lanes, goal, settings.seed),
        "trace": record.trace(lanes, settings.pass_score, settings.seed),
    }
    write_text(directory / RESULT, json.dumps(found, indent=1, allow_nan=False) + "\n")
    return found


def content_of(
    plan: Plan,
    settings: TuningConfig,
    data: Data,
    inputs: Inputs,
    resets: Mapping[float, ResetSet],
    omega: float,
) -> dict[str, Any]:
    """All that decides the scores of a candidate but the sampler, by content. Of the reward function's file the
    bytes count; what that imports does not."""
    files = [Path(file).expanduser() for file in data.prompts.files]
    reward, _, function = data.reward.rpartition(":")
    prompts = replace(data.prompts, files=(), key="")
    return {
        "format": FORMAT,
        "base": dict(inputs.base),
        "sft": dict(inputs.sft),
        "fusion": asdict(plan.fusion) | {"alpha": None},
        "reset": [plan.reset.omega, plan.reset.chosen.digest] if plan.reset else None,
        "resets": {f"{rho:g}": chosen.digest for rho, chosen in resets.items()},
        "omega": omega,
        "prompts": [sha256_files([file])[file] for file in files],
        "asking": asdict(prompts) | {"template": dict(prompts.template)},
        "reward": [_sha256(reward), function, {name: repr(value) for name, value in data.reward_arguments.items()}],
        "group": data.group,
        "temperature": data.temperature,
        "seed": settings.seed,
    }


def _sha256(file: str) -> str:
    path = Path(file).expanduser()
    return sha256_files([path])[path]


def _question(
    plan: Plan,
    settings: TuningConfig,
    data: Data,
    resets: Mapping[float, ResetSet],
    omega: float,
    device: torch.device,
    key: str,
) -> Question:
    tokenizer = load_tokenizer(plan.sft)
    return Question(
        plan,
        resets,
        omega,
        tuple(draw_tasks(plan.sft, data.prompts, settings.count, settings.seed, tokenizer)),
        tokenizer,
        load_reward(data.reward, f"{key}reward", **data.reward_arguments),
        data.group,
        data.prompts.max_response,
        data.temperature,
        settings.seed,
        device,
        _wants_vllm(settings, device),
        key,
    )


def _wants_vllm(settings: TuningConfig, device: torch.device) -> bool:
    if settings.sampler != "auto":
        return settings.sampler == "vllm"
    return device.type == "cuda" and with_vllm.installed()


def _sampler(question: Question) -> str:
    return "vllm" if question.vllm else "transformers"


def _versions() -> dict[str, str]:
    libraries = {name: version(name) for name in ("torch", "transformers", "numpy")}
    return {"rejuv-plugin": __version__, "python": python_version(), **libraries}


def _machine(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": name, "threads": torch.get_num_threads()}
