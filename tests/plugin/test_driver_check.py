# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Every bad input of a verl job, found by the command before Ray starts: one line, exit code 2, nothing written.

The configuration is cut down to what is read here; `verl_jobs/test_refusals.py` runs whole commands.
"""

import collections
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from checkpoints import edit_json, make_pair, save_model, set_weights, snapshot, weights
from omegaconf import OmegaConf
from safetensors.torch import save_file

from rejuv_plugin.config import defaults
from rejuv_plugin.integrations.verl.driver_check import checked
from rejuv_plugin.integrations.verl.job import job_of, run_directory
from rejuv_plugin.integrations.verl.monitors.probe_set import probe_set_of

MODEL, BASE, CACHE = "actor_rollout_ref.model.path", "rejuvenation.base_path", "rejuvenation.cache_dir"


def configuration(root: Path, **settings: Any) -> Any:
    return OmegaConf.create(
        {
            "rejuvenation": {**defaults(), "base_path": str(root / "base"), **settings},
            "trainer": {"use_v1": True, "default_local_dir": str(root / "run")},
            "actor_rollout_ref": {"model": {"path": str(root / "sft"), "external_lib": None}},
        }
    )


def edited(side: str, **entries: Any) -> Callable[[Path], None]:
    return lambda root: edit_json(root / side / "config.json", **entries)


def pickled(root: Path) -> None:
    (root / "base" / "model.safetensors").rename(root / "base" / "pytorch_model.bin")


def other_shapes(root: Path) -> None:
    shutil.rmtree(root / "base")
    save_model(root / "base", 0, intermediate_size=56)


def grown(root: Path) -> None:
    shutil.rmtree(root / "sft")
    save_model(root / "sft", 1, vocab_size=72)


def without_a_tensor(root: Path) -> None:
    tensors = weights(root / "sft")
    tensors.pop("model.norm.weight")
    set_weights(root / "sft", tensors)


def same_files(root: Path) -> None:
    shutil.rmtree(root / "base")
    (root / "base").symlink_to(root / "sft")


@pytest.mark.parametrize(
    ("spoil", "key", "says"),
    [
        (lambda root: shutil.rmtree(root / "base"), BASE, "which does not exist"),
        (lambda root: shutil.rmtree(root / "sft"), MODEL, "which does not exist"),
        (same_files, BASE, "the model before SFT"),
        (edited("base", model_type="llama"), BASE, "architecture"),
        (other_shapes, BASE, "shape"),
        (without_a_tensor, MODEL, "model.norm.weight"),
        (grown, BASE, "rejuvenation.fusion.grown_vocabulary"),
        (edited("sft", quantization_config={"quant_method": "fp8"}), MODEL, "quanti"),
        (pickled, BASE, "pytorch_model.bin"),
        (lambda root: (root / "run").write_text("a file"), CACHE, "which is a file"),
    ],
)
def test_bad_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], key: str, says: str
) -> None:
    make_pair(tmp_path)
    spoil(tmp_path)
    assert_ends_with(configuration(tmp_path), tmp_path, capsys, key, says)


def test_no_space_left(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    make_pair(tmp_path)
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    assert_ends_with(configuration(tmp_path), tmp_path, capsys, CACHE, "1000 bytes")


def test_the_side_that_is_here_is_checked_when_the_other_is_a_hub_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_pair(tmp_path)
    edit_json(tmp_path / "sft" / "config.json", quantization_config={"quant_method": "fp8"})
    config = configuration(tmp_path, base_path="an-organisation/a-model")
    assert_ends_with(config, tmp_path, capsys, MODEL, "quanti")


@pytest.mark.parametrize(
    ("rows", "says"),
    [(None, "not/there.jsonl"), ('{"question": "1+1"}\n', "question"), ('{"prompt": "1+1=", "response": ""}\n', "")],
    ids=["missing", "other columns", "no response"],
)
def test_a_bad_probe_set(tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: str | None, says: str) -> None:
    make_pair(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path / "sft")
    path = tmp_path / "not" / "there.jsonl"
    if rows:
        path = tmp_path / "probe.jsonl"
        path.write_text(rows)
    config = configuration(tmp_path, monitors={"probe_set": {"data": str(path)}})
    assert_ends_with(config, tmp_path, capsys, "rejuvenation.monitors.probe_set.data", says)


def test_unknown_monitors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pair(tmp_path)
    config = configuration(tmp_path, monitors={"entropies": True})
    assert_ends_with(config, tmp_path, capsys, "rejuvenation.monitors.entropies", "one of the keys")
    config = configuration(tmp_path, monitors={"probe_set": {"every": 0}})
    assert_ends_with(config, tmp_path, capsys, "rejuvenation.monitors.probe_set.every", "above 0")


def assert_ends_with(config: Any, root: Path, capsys: pytest.CaptureFixture[str], key: str, says: str) -> None:
    before, verl_was_asked = snapshot(root), []
    capsys.readouterr()  # what saving the models printed
    with pytest.raises(SystemExit) as end:
        checked(lambda *_: verl_was_asked.append(True))(config, False, False)
    assert end.value.code == 2
    assert not verl_was_asked
    line = capsys.readouterr().err.strip()
    assert line.startswith(f"rejuvenation: {key}: expected ")
    assert says in line
    assert " Fix: " in line
    assert "\n" not in line
    assert snapshot(root) == before


def test_the_probe_set_of_an_adapter_is_told_by_its_base(tmp_path: Path) -> None:
    tiny.save_base(tmp_path / "base")
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "adapter_config.json").write_text("{}")
    data = tmp_path / "held_out.jsonl"
    data.write_text(json.dumps({"prompt": "2+2?", "response": "4"}))
    job = job_of(configuration(tmp_path, monitors={"probe_set": {"data": str(data)}}))
    assert len(probe_set_of(job)) == 1


def make_adapter(root: Path) -> None:
    """A base with a LoRA adapter as the SFT checkpoint."""
    make_pair(root)
    shutil.rmtree(root / "sft")
    (root / "sft").mkdir()
    entries = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "bias": "none", "target_modules": ["q_proj"]}
    (root / "sft" / "adapter_config.json").write_text(json.dumps(entries))
    module = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    factors = {f"{module}A.weight": torch.ones(2, 32), f"{module}B.weight": torch.ones(32, 2)}
    save_file(factors, root / "sft" / "adapter_model.safetensors")


def test_an_adapter_is_no_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_adapter(tmp_path)
    says = "rejuvenated, with a LoRA adapter as the SFT checkpoint, got 'sft'. Fix: merge the adapter into its base"
    assert_ends_with(configuration(tmp_path, ref="sft"), tmp_path, capsys, "rejuvenation.ref", says)
    checked(lambda *_: None)(configuration(tmp_path), False, False)


def test_an_adapter_of_a_base_that_is_a_hub_name_is_left_to_the_trainer(tmp_path: Path) -> None:
    make_adapter(tmp_path)
    checked(lambda *_: None)(configuration(tmp_path, base_path="an-organisation/a-model"), False, False)


def test_an_address_is_no_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pair(tmp_path)
    config = configuration(tmp_path, base_path="hdfs://cluster/models/base")
    assert_ends_with(config, tmp_path, capsys, BASE, "the address 'hdfs://cluster/models/base'. Fix: download it")


def test_what_a_machine_that_submits_jobs_does_not_see_is_left_to_the_trainer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pair(tmp_path)
    shutil.rmtree(tmp_path / "sft")
    assert_ends_with(configuration(tmp_path), tmp_path, capsys, MODEL, "which does not exist")
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "tmp"))
    assert_ends_with(configuration(tmp_path), tmp_path, capsys, MODEL, "which does not exist")
    # As `ray start` leaves it, on a head node too.
    (tmp_path / "tmp" / "ray").mkdir(parents=True)
    (tmp_path / "tmp" / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379")
    checked(lambda *_: None)(configuration(tmp_path), False, False)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert_ends_with(configuration(tmp_path), tmp_path, capsys, MODEL, "which does not exist")
    shutil.rmtree(tmp_path / "tmp")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    checked(lambda *_: None)(configuration(tmp_path), False, False)
    edited("base", quantization_config={"quant_method": "fp8"})(tmp_path)
    assert_ends_with(configuration(tmp_path), tmp_path, capsys, BASE, "quanti")


@pytest.mark.parametrize("mode", ["disk", "worker"])
def test_a_cache_inside_an_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str) -> None:
    make_pair(tmp_path)
    config = configuration(tmp_path, mode=mode, cache_dir=str(tmp_path / "sft" / "cache"))
    assert_ends_with(config, tmp_path, capsys, CACHE, "outside")


def test_the_run_is_where_verl_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell leaves the ~ of an override as it is, and so does verl."""
    monkeypatch.chdir(tmp_path)
    config = configuration(tmp_path)
    config.trainer.default_local_dir = "~/run"
    assert run_directory(config) == tmp_path / "~" / "run"
    assert job_of(config).cache_dir == str(tmp_path / "~" / "run" / "rejuvenated")


def test_stopping_on_alarms_that_are_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configuration(tmp_path, monitors={"stop_on_alarm": True, "alarms": False})
    assert_ends_with(config, tmp_path, capsys, "rejuvenation.monitors.stop_on_alarm", "false without alarms")


def test_good_input_arms_the_tripwire_and_goes_on(tmp_path: Path) -> None:
    make_pair(tmp_path)
    config, asked, before = configuration(tmp_path), [], snapshot(tmp_path)
    checked(lambda *_: asked.append(True))(config, False, False)
    assert asked
    assert config.actor_rollout_ref.model.external_lib == ["rejuv_plugin.integrations.verl.tripped"]
    assert snapshot(tmp_path) == before


def test_without_the_group_nothing_happens(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    del config.rejuvenation
    copy = OmegaConf.create(OmegaConf.to_container(config))
    checked(lambda *_: None)(config, False, False)
    assert config == copy
