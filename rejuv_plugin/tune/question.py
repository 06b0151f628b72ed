# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What every candidate is asked, and what candidates are made of."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import Plan
from ..checkpoint.digest import sha256_file
from ..checkpoint.provenance import Inputs
from ..config import TuningConfig
from ..errors import InputError
from ..neurons.reset_set import ResetSet
from ..probe.load import device_of, load_tokenizer
from ..probe.reward import Reward, load_reward, try_out
from ..probe.tasks import Task, draw_tasks
from . import with_vllm
from .data import Data

# Of what scores depend on: a change makes all that is known of candidates another thing.
FORMAT = 1


@dataclass(frozen=True)
class Question:
    """From `question_of`."""

    plan: Plan
    """Of two full checkpoints. Its alpha does not matter; if it has a reset, so have all candidates."""
    data: Data
    tasks: tuple[Task, ...]
    tokenizer: Any
    reward: Reward
    seed: int
    device: torch.device
    sampler: str
    """``transformers`` or ``vllm``."""
    key: str
    """How errors name settings before their own names."""
    resets: Mapping[float, ResetSet] = field(default_factory=dict)
    """The reset set of every rho above 0 that is tried."""
    omega: float = 1.0
    """Weight of the base on reset neurons."""

    def content(self, inputs: Inputs) -> dict[str, Any]:
        """All that decides the scores of a candidate, as JSON. Of the reward function's file the bytes count; what that
        imports does not.

        Args:
            inputs: digests of the two checkpoints.
        """
        data, plan = self.data, self.plan
        files = [Path(file).expanduser() for file in data.prompts.files]
        reward, _, function = data.reward.rpartition(":")
        code = Path(reward).expanduser()
        return {
            "format": FORMAT,
            "base": dict(inputs.base),
            "sft": dict(inputs.sft),
            "fusion": asdict(plan.fusion) | {"alpha": None},
            "reset": [plan.reset.omega, plan.reset.chosen.digest] if plan.reset else None,
            "resets": {f"{rho:g}": chosen.digest for rho, chosen in self.resets.items()},
            "omega": self.omega,
            "prompts": [sha256_file(file) for file in files],
            "asking": asdict(replace(data.prompts, files=(), key="")),
            "reward": [sha256_file(code), function, repr(sorted(data.reward_arguments.items()))],
            "group": data.group,
            "temperature": data.temperature,
            "seed": self.seed,
            "sampler": self.sampler,
        }


def question_of(plan: Plan, settings: TuningConfig, data: Data, key: str) -> Question:
    """Draw the tasks; the reward function's file is run, no weight is read, nothing is written.

    Args:
        plan: from `checkpoint.plan_fusion`.
        settings: of the search.
        data: prompts and reward.
        key: how errors name settings before their own names: ``rejuvenation.tune.`` or ``--``.

    Raises:
        InputError: named ``key`` and a setting, or as `tasks.draw_tasks` and `reward.load_reward`.
    """
    if plan.adapter:
        raise InputError(plan.sft.key, "a full checkpoint to fuse in memory", "a LoRA adapter", "merge it first")
    data.check(settings, key)
    device = device_of(settings.device, f"{key}device")
    if settings.sampler == "vllm" and not with_vllm.installed():
        raise InputError(f"{key}sampler", "vllm in this environment", "none", "use transformers")
    reward, tokenizer = load_reward(data.reward, f"{key}reward", **data.reward_arguments), load_tokenizer(plan.sft)
    tasks = draw_tasks(plan.sft, data.prompts, settings.count, settings.seed, tokenizer, judged=True)
    try_out(reward, tasks[0], f"{key}reward")
    return Question(
        plan,
        data,
        tuple(tasks),
        tokenizer,
        reward,
        settings.seed,
        device,
        settings.sampler,
        key,
    )
