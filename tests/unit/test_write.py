# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""All or nothing: what killed runs left, names that are taken, inputs that change meanwhile."""

import os
from pathlib import Path

import pytest
from checkpoints import SINGLE, make_pair, snapshot, weights, write_safetensors

from rejuv_plugin.checkpoint import Plan, apply, plan_fusion, read_inputs
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.errors import InputError

HOST = os.uname().nodename


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    base, sft = make_pair(tmp_path)
    return plan_fusion(str(base), str(sft), FusionConfig())


def test_what_killed_runs_of_this_host_left_is_removed(tmp_path: Path, plan: Plan) -> None:
    # Without a lock nobody knows whether another host is still at work. Our own number is a run before a restart.
    kept = {f"out.tmp-another-host-{os.getpid()}", f"out.tmp-{HOST}-{os.getppid()}", f"other.tmp-{HOST}-{os.getpid()}"}
    for name in {*kept, f"out.tmp-{HOST}-{os.getpid()}", f"out.tmp-{HOST}-{2**22 + 1}"}:
        (tmp_path / name).mkdir()
        (tmp_path / name / SINGLE).write_bytes(b"half")
    apply(plan, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"base", "sft", "out", *kept}


def test_a_temporary_name_that_is_taken(tmp_path: Path, plan: Plan) -> None:
    # A file: what a killed run leaves is a directory, and removed.
    taken = tmp_path / f"out.tmp-{HOST}-{os.getpid()}"
    taken.write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(InputError) as caught:
        apply(plan, tmp_path / "out")
    assert str(caught.value).startswith("--output: ")
    assert f"got {taken}, which exists. Fix: remove {taken}" in str(caught.value)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("name", ["sft/tokenizer.json", f"sft/{SINGLE}", f"base/{SINGLE}"])
def test_a_file_that_changes_meanwhile(tmp_path: Path, plan: Plan, name: str, hashed: bool) -> None:
    def edit(phase: str, done: int, total: int) -> None:
        if phase == "write":
            with (tmp_path / name).open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"!")

    inputs = read_inputs(plan) if hashed else None
    with pytest.raises(OSError, match=rf"{name} changed while it was read$"):
        apply(plan, tmp_path / "out", inputs=inputs, progress=edit)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "sft"]


def test_a_file_that_changes_between_hashing_and_reading(tmp_path: Path, plan: Plan) -> None:
    inputs = read_inputs(plan)
    with (tmp_path / "base" / SINGLE).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    with pytest.raises(OSError, match=rf"base/{SINGLE} changed while it was read$"):
        apply(plan, tmp_path / "out", inputs=inputs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "sft"]


def test_a_file_that_is_replaced_after_planning(tmp_path: Path, plan: Plan) -> None:
    write_safetensors(tmp_path / "sft" / SINGLE, sorted(weights(tmp_path / "sft").items(), reverse=True))
    with pytest.raises(OSError, match=rf"sft/{SINGLE} changed while it was read$"):
        apply(plan, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "sft"]
