# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Hub names: what is downloaded, what is never, and what a user reads when it fails."""

import fnmatch
from pathlib import Path

import pytest
from checkpoints import make_pair

from rejuv_plugin.checkpoint import is_hub_name, plan_fusion
from rejuv_plugin.checkpoint.source import locate
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.errors import InputError


def test_a_hub_model_is_named_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, sft = make_pair(tmp_path)
    snapshot = tmp_path / "models--some--model" / "snapshots" / "0a1b2c"
    snapshot.parent.mkdir(parents=True)
    sft.rename(snapshot)
    asked = {}

    def download(name: str, **patterns: list[str]) -> str:
        asked[name] = patterns
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    plan = plan_fusion(str(base), "some/model", FusionConfig())
    assert (plan.sft.root, plan.sft.label, plan.sft.given) == (snapshot.resolve(), "model", "some/model")

    def fetched(file: str) -> bool:
        wanted, unwanted = (
            any(fnmatch.fnmatch(file, pattern) for pattern in asked["some/model"][kind])
            for kind in ("allow_patterns", "ignore_patterns")
        )
        return wanted and not unwanted

    kept = ["model.safetensors", "config.json", "tokenizer.model", "merges.txt", "additional_chat_templates/a.jinja"]
    kept += ["modeling_x.py", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    assert [file for file in kept if not fetched(file)] == []
    refused = ["pytorch_model.bin", "x.pt", "x.pkl", "original/params.json", "onnx/model.safetensors", "eval/run.py"]
    refused += ["consolidated.safetensors", "consolidated-00001-of-00002.safetensors"]
    assert [file for file in refused if fetched(file)] == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("some/model", True),
        ("gpt2", True),
        ("Qwen/Qwen2.5-0.5B", True),
        ("here", False),
        ("here/model", False),
        ("here/file", False),
        ("./some/model", False),
        ("/some/model", False),
        ("~/model", False),
        ("some/deep/model", False),
        ("", False),
    ],
)
def test_hub_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: bool) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "model").mkdir(parents=True)
    (tmp_path / "here" / "file").touch()
    assert is_hub_name(name) is expected


@pytest.mark.parametrize("error", [FileNotFoundError("no\nsuch  model"), ValueError("bad name"), ConnectionError("x")])
def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(name: str, **patterns: list[str]) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(InputError) as caught:
        locate("some/model", "rejuvenation.base_path")
    message = str(caught.value)
    assert message.startswith("rejuvenation.base_path: expected a directory or a hub name")
    assert type(error).__name__ in message
    assert "Fix: check rejuvenation.base_path and the network" in message
    assert "\n" not in message


def test_a_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert locate("~/model", "--sft") == (tmp_path / "model").resolve()
