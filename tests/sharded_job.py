# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A measurement of the reset set, by one process and by several ranks."""

import json
import pickle
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tiny
import torch
from architectures import make

from rejuv_plugin.checkpoint import plan_fusion, read_inputs
from rejuv_plugin.checkpoint.plan import Plan
from rejuv_plugin.config import FusionConfig, ResetConfig
from rejuv_plugin.neurons.reset_set import ResetSet
from rejuv_plugin.probe.dialogue import Example, examples_of
from rejuv_plugin.probe.measure import input_digests, measure, measure_sharded

CPU = torch.device("cpu")
ROWS = [{"prompt": f"{a}+{b}=", "response": f"{a + b}"} for a in range(2) for b in range(3)]
# What differs between runs, and nothing else may.
USAGE = ("device", "seconds", "peak_memory_bytes")


def save_pair(root: Path, variant: str, dtype: torch.dtype = torch.float32, **options: Any) -> None:
    tokenizer = tiny.tokenizer()
    for side, seed in (("base", 0), ("sft", 1)):
        model = make(variant, seed, vocab_size=len(tokenizer)).to(dtype)
        model.save_pretrained(root / side, **options)
        tokenizer.save_pretrained(root / side)


class Job:
    """The arguments of `measure_sharded`, and what `measure` finds."""

    def __init__(self, root: Path, examples: int = len(ROWS), **settings: Any) -> None:
        (root / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:examples]))
        values = {"ratio": 0.05, "positions": 2, "calibration": str(root / "data.jsonl")} | settings
        self.plan = plan_fusion(str(root / "base"), str(root / "sft"), FusionConfig())
        self.settings, self.inputs = ResetConfig(**values), read_inputs(self.plan)
        self.examples = examples_of(self.plan.sft, self.settings, "--calibration")

    @cached_property
    def alone(self) -> ResetSet:
        threads = torch.get_num_threads()
        # As the ranks have: the last bits depend on it.
        torch.set_num_threads(1)
        try:
            return measure(self.plan, self.settings, self.inputs, "--")
        finally:
            torch.set_num_threads(threads)

    def sharded(self, plan: Plan | None = None, examples: Sequence[Example] = (), progress: Any = None) -> ResetSet:
        digests = input_digests(self.inputs, self.settings, "--")
        arguments = (plan or self.plan, self.settings, examples or self.examples, digests, "--", CPU)
        # As a trainer ships them.
        return measure_sharded(*pickle.loads(pickle.dumps(arguments)), progress)


def without_usage(found: ResetSet) -> dict[str, Any]:
    content = found.to_json()
    return content | {"statistics": {name: v for name, v in content["statistics"].items() if name not in USAGE}}
