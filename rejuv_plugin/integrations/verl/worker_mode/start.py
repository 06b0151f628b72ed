# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What the trainer tells its workers: which weights to start from. Small, and the same for all."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ....checkpoint import Plan, plan_reset
from ....checkpoint.pieces import read_exactly
from ....config import FusionConfig, ResetConfig
from ....errors import InputError
from ....neurons.reset_set import ResetSet
from ....probe.dialogue import Example
from ..job import BASE_PATH, MODEL_PATH
from ..planning import SET_KEY, fusion_of

_PLACES, _SAMPLE = 16, 4 << 10


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
    fingerprint: str
    """See `fingerprint`: what the trainer saw under the two paths."""
    ref: str
    """The setting ``rejuvenation.ref``."""
    critic: bool
    """The setting ``rejuvenation.critic``."""
    omega: float
    chosen: ResetSet | None
    """The neurons to reset; None: there are none, or the workers find them by ``search``."""
    search: Search | None

    def plan(self) -> Plan:
        """The plan of the fusion, by this node's own files; reads headers, and samples of the weights.

        Raises:
            InputError: the files are not here, or not those that the trainer saw.
        """
        plan = fusion_of(self.base_path, self.sft_path, self.fusion)
        if fingerprint(plan) != self.fingerprint:
            raise InputError(
                f"{MODEL_PATH} and {BASE_PATH}",
                "on every node the checkpoints that the trainer's node has",
                f"others at {plan.sft.root} or {plan.base.root}",
                "copy both to the same paths on all nodes",
            )
        return plan

    def with_reset(self, plan: Plan, chosen: ResetSet | None) -> Plan:
        """``plan`` that also resets ``chosen``, if there is one."""
        return plan_reset(plan, chosen, self.omega, SET_KEY) if chosen else plan


def fingerprint(plan: Plan) -> str:
    """Hexadecimal SHA-256 over what tells copies of one checkpoint from another one cheaply, for both sides:
    config.json, the headers of all weight files, and 64 KiB of each in 16 places. Two states of one model, as two
    epochs of SFT are, differ in nearly every weight, and so in some of these; damage elsewhere is not seen."""
    content: list[Any] = []
    for side in (plan.base, plan.sft):
        content.append(side.config)
        for name, header in side.headers.items():
            digest, first = hashlib.sha256(header.prefix), len(header.prefix)
            last = max(first, header.size - _SAMPLE)
            path = side.root / name
            # Without a buffer, for which a shared file system may ask megabytes.
            with path.open("rb", buffering=0) as file:
                for place in range(_PLACES):
                    start = first + (last - first) * place // (_PLACES - 1)
                    sample = bytearray(min(_SAMPLE, header.size - start))
                    digest.update(read_exactly(file.fileno(), start, sample, path))
            content.append([name, header.size, digest.hexdigest()])
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
