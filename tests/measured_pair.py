# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A tiny base and SFT checkpoint with calibration data, and the reset set that is measured on them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from checkpoints import set_weights, weights

from rejuv_plugin.checkpoint import plan_fusion, read_inputs
from rejuv_plugin.config import FusionConfig, ResetConfig
from rejuv_plugin.neurons.reset_set import ResetSet
from rejuv_plugin.probe.measure import measure

ROWS = [{"prompt": f"{a}+{b}=", "response": f"{a + b}, I think"} for a in range(2) for b in range(3)]


def save_pair(root: Path) -> Path:
    """``base``, ``sft`` and ``data.jsonl``."""
    base = tiny.save_base(root / "base", dtype=torch.float32)
    tiny.save_sft(root / "sft", base, scale=0.05)
    (root / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return root


def own_copy(pair: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to write in and break, which the test then runs in."""
    shutil.copytree(pair, to, dirs_exist_ok=True)
    monkeypatch.chdir(to)
    return to


def measured(root: Path, **settings) -> ResetSet:
    plan = plan_fusion(str(root / "base"), str(root / "sft"), FusionConfig())
    values = {"ratio": 0.05, "positions": 2, "calibration": str(root / "data.jsonl")} | settings
    return measure(plan, ResetConfig(**values), read_inputs(plan), "--")


def with_nan(side: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        tensors = weights(root / side)
        tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
        set_weights(root / side, tensors)

    return spoil
