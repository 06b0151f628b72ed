# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Outputs that cannot be written and fusions that cannot be made: one line, and nothing is left behind."""

import collections
import errno
import os
import shutil
from pathlib import Path

import pytest
from checkpoints import (
    SINGLE,
    edit_json,
    make_pair,
    set_weights,
    snapshot,
    weights,
    write_safetensors,
)
from refusals import assert_refused

from rejuv_plugin.checkpoint import apply, plan_fusion, write
from rejuv_plugin.checkpoint.target import check_output
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.errors import InputError


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    make_pair(tmp_path)
    return tmp_path


def test_an_output_that_fills_up_meanwhile(pair: Path) -> None:
    plan = plan_fusion(str(pair / "base"), str(pair / "sft"), FusionConfig())

    def another_run(*progress: object) -> None:
        (pair / "out").mkdir(exist_ok=True)
        (pair / "out" / "theirs").write_text("first")

    with pytest.raises(InputError, match=r"^--output: .*not empty"):
        apply(plan, pair / "out", progress=lambda phase, *rest: another_run() if phase == "write" else None)
    assert snapshot(pair / "out") == {"theirs": b"first"}
    assert not list(pair.glob("*.tmp-*"))


def test_an_output_with_something_in_it(pair: Path) -> None:
    (pair / "out").mkdir()
    (pair / "out" / "notes").write_text("mine")
    assert_refused(pair, "--output", "not empty")


@pytest.mark.parametrize("output", ["base", "sft", "sft/new/out", "base/out"])
def test_an_output_in_an_input(pair: Path, output: str) -> None:
    assert_refused(pair, "--output", "outside of", "give another directory", output=output)


@pytest.mark.parametrize("output", ["file", "file/out", "file/new/out"])
def test_an_output_below_a_file(pair: Path, output: str) -> None:
    (pair / "file").write_text("x")
    assert_refused(pair, "--output", "which is a file", output=output)


def test_an_output_that_is_not_writable(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write anywhere, so the answer of a read-only place is put in the system's mouth.
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK)
    assert_refused(pair, "--output", "not writable")


def test_a_read_only_file_system(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert_refused(pair, "--output", "Read-only file system", "set --output elsewhere")


def test_no_space_before(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 0, 1000))
    needed = plan_fusion(str(pair / "base"), str(pair / "sft"), FusionConfig()).output_bytes + (4 << 20)
    assert_refused(pair, "--output", f"{needed} bytes free", "got 1000 bytes", "free some space")


def test_no_space_while_writing(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_up(*args: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, "write_weights", fill_up)
    assert_refused(pair, "--output", "a full disk", "free some space")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_any_other_failure_leaves_nothing(pair: Path, monkeypatch: pytest.MonkeyPatch, error: type) -> None:
    def fail(*args: object) -> str:
        raise error("in the middle")

    monkeypatch.setattr(write, "write_weights", fail)
    before = snapshot(pair)
    with pytest.raises(error, match="in the middle"):
        apply(plan_fusion(str(pair / "base"), str(pair / "sft"), FusionConfig()), pair / "out")
    assert snapshot(pair) == before


def test_an_input_that_cannot_be_read_is_no_fault_of_the_output(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(pair / "sft" / SINGLE))

    monkeypatch.setattr(write, "write_weights", fail)
    with pytest.raises(PermissionError):
        apply(plan_fusion(str(pair / "base"), str(pair / "sft"), FusionConfig()), pair / "out")
    assert not (pair / "out").exists()


def test_a_mount_point(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pair / "out").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == pair / "out")
    with pytest.raises(InputError, match=r"^--output: .* one is mounted. Fix: give a directory below it"):
        check_output(plan_fusion(str(pair / "base"), str(pair / "sft"), FusionConfig()), pair / "out", "--output")


def test_one_of_two_tied_tensors(tmp_path: Path) -> None:
    """A loader would find two that differ, and tie them or not."""
    make_pair(tmp_path)
    for side in ("base", "sft"):
        edit_json(tmp_path / side / "config.json", tie_word_embeddings=True)
    for setting, pattern in (("exclude_tensors", "lm_head*"), ("only_tensors", "model.*")):
        with pytest.raises(InputError, match=rf"^--{setting.replace('_', '-')}: .* which are tied"):
            plan_fusion(str(tmp_path / "base"), str(tmp_path / "sft"), FusionConfig(**{setting: pattern}))
    plan_fusion(
        str(tmp_path / "base"), str(tmp_path / "sft"), FusionConfig(exclude_tensors="lm_head* model.embed_tokens*")
    )


def test_nothing_moved_in_what_is_fused(tmp_path: Path) -> None:
    make_pair(tmp_path)
    base, sft = weights(tmp_path / "base"), weights(tmp_path / "sft")
    set_weights(tmp_path / "sft", {name: base[name] if "norm" in name else sft[name] for name in sft})
    plan = plan_fusion(str(tmp_path / "base"), str(tmp_path / "sft"), FusionConfig(only_tensors="*norm*"))
    with pytest.raises(InputError, match=r"^--sft: .*the base's in all 5. Fix: leave in some that SFT has changed"):
        apply(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_base_that_was_saved_again_meanwhile(tmp_path: Path) -> None:
    """Its tensors lie elsewhere by then."""
    make_pair(tmp_path)
    plan = plan_fusion(str(tmp_path / "base"), str(tmp_path / "sft"), FusionConfig())
    tensors = list(weights(tmp_path / "base").items())
    write_safetensors(tmp_path / "base" / SINGLE, tensors[::-1])
    with pytest.raises(OSError, match="changed while it was read"):
        apply(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
