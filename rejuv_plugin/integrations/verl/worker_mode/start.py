# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What the trainer tells its workers: which weights to start from. Small, and the same for all."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ....checkpoint import Plan, plan_reset
from ....config import FusionConfig, ResetConfig
from ....errors import InputError
from ....neurons.reset_set import ResetSet
from ....probe.dialogue import Example
from ..job import MODEL_PATH
from ..planning import SET_KEY, fusion_of


@dataclass(frozen=True)
class Search:
    """How the workers find the neurons to reset, on their own shards."""

    settings: ResetConfig
    examples: Sequence[Example]
    """The calibration data as token ids: only the trainer's node needs the file."""
    digests: Mapping[str, str]
    """Of base, SFT checkpoint and calibration data, to be recorded in the set."""


@dataclass(frozen=True)
class Start:
    """The weights that training starts from."""

    base_path: str
    sft_path: str
    fusion: FusionConfig
    headers: str
    """See `headers_digest`: what the trainer saw under the two paths."""
    ref: str
    """The setting ``rejuvenation.ref``."""
    omega: float
    chosen: ResetSet | None
    """The neurons to reset; None: there are none, or the workers find them by ``search``."""
    search: Search | None

    def plan(self) -> Plan:
        """The plan of the fusion, by this node's own files; read from headers alone.

        Raises:
            InputError: the files are not here, or not those that the trainer saw.
        """
        plan = fusion_of(self.base_path, self.sft_path, self.fusion)
        if headers_digest(plan) != self.headers:
            raise InputError(
                f"{MODEL_PATH} and rejuvenation.base_path",
                "on every node the checkpoints that the trainer's node has",
                f"others at {plan.sft.root} or {plan.base.root}",
                "copy both to the same paths on all nodes",
            )
        return plan

    def with_reset(self, plan: Plan, chosen: ResetSet | None) -> Plan:
        """``plan`` that also resets ``chosen``, if there is one."""
        return plan_reset(plan, chosen, self.omega, SET_KEY) if chosen else plan


def headers_digest(plan: Plan) -> str:
    """Hexadecimal SHA-256 over the headers of all weight files and both config.json: cheap at any size, the same for
    copies of one checkpoint, and another for another model. It does not look at weights."""
    content: list[Any] = []
    for side in (plan.base, plan.sft):
        content.append(side.config)
        content += [[name, hashlib.sha256(header.prefix).hexdigest()] for name, header in side.headers.items()]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
