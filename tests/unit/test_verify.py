# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""`rejuv verify`: exit code 0 for what was written, 2 with a line for whatever is not."""

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import edit_json, make_pair
from test_cli import rejuv

from rejuv_plugin.checkpoint import apply, plan_fusion
from rejuv_plugin.config import FusionConfig

SHARD = "model-00002-of-"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    base, sft = make_pair(tmp_path, max_shard_size="30KB")
    apply(plan_fusion(str(base), str(sft), FusionConfig()), tmp_path / "out")
    return tmp_path / "out"


def shard(made: Path) -> Path:
    return next(made.glob(f"{SHARD}*"))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_what_was_written_is_right(made: Path, capsys: pytest.CaptureFixture) -> None:
    assert rejuv("verify", str(made)) == 0
    assert capsys.readouterr().out == f"{made}: as it was written\n"
    (made / "README.md").write_text("someone's notes")
    assert rejuv("verify", "--json", str(made)) == 0
    assert json.loads(capsys.readouterr().out) == {}


@pytest.mark.parametrize(
    ("damage", "name", "says"),
    [
        (lambda made: flip(shard(made), -1), SHARD, "other bytes"),
        (lambda made: flip(shard(made), 20), SHARD, ""),
        (lambda made: shard(made).write_bytes(shard(made).read_bytes()[:-1]), SHARD, "bytes in place of"),
        (lambda made: shard(made).unlink(), SHARD, "No such file"),
        (lambda made: flip(made / "tokenizer.json", 3), "tokenizer.json", "other bytes"),
        (lambda made: (made / "config.json").write_text("{}"), "config.json", "2 bytes in place of"),
        (lambda made: (made / "extra.safetensors").write_bytes(b"x"), "extra.safetensors", "does not know"),
        (lambda made: (made / "pytorch_model.bin").write_bytes(b"x"), "pytorch_model.bin", "does not know"),
        (lambda made: (made / "adapter_config.json").write_text("{}"), "adapter_config.json", "loaders read"),
        (lambda made: (made / "vocab.json").write_text("{}"), "vocab.json", "loaders read"),
        (lambda made: (made / "vocab.json").symlink_to("/nowhere"), "vocab.json", "loaders read"),
    ],
)
def test_whatever_changed_is_named(
    made: Path, capsys: pytest.CaptureFixture, damage: Callable, name: str, says: str
) -> None:
    damage(made)
    assert rejuv("verify", str(made)) == 2
    out = capsys.readouterr().out
    assert out.startswith(name)
    assert says in out
    assert out.count("\n") == 1


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda file: file.unlink(), "no such file"),
        (lambda file: file.write_text("{"), "JSONDecodeError"),
        (lambda file: file.write_text("[]"), "AttributeError"),
        (lambda file: edit_json(file, outputs={"x": {}}), "KeyError"),
        (lambda file: edit_json(file, digest="sha256"), "'sha256'"),
        (lambda file: edit_json(file, outputs={"../x": {"digest": "", "size": 1}}), "of its own directory"),
        (lambda file: edit_json(file, outputs={"/x": {"digest": "", "size": 1}}), "of its own directory"),
    ],
)
def test_a_manifest_that_says_nothing(made: Path, capsys: pytest.CaptureFixture, damage: Callable, says: str) -> None:
    damage(made / "rejuvenation.json")
    assert rejuv("verify", str(made)) == 2
    assert capsys.readouterr().err.startswith("rejuv: DIRECTORY: expected ")
    assert rejuv("verify", str(made)) == 2
    assert says in capsys.readouterr().err


def test_a_disk_that_fails_hides_nothing(
    made: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["rejuv_plugin.checkpoint.verify"]
    real = module.digest_files

    def fail(files: dict, **options: object) -> dict:
        if shard(made) in files:
            raise OSError(errno.EIO, "Input/output error")
        return real(files, **options)

    monkeypatch.setattr(module, "digest_files", fail)
    flip(made / "tokenizer.json", 3)
    assert rejuv("verify", str(made)) == 2
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.partition(": ")[2] for line in lines) == ["Input/output error", "other bytes"]
