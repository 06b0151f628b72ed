# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The reset in a verl job, up to where the workers would start: no Ray."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from rejuv_plugin.config import defaults
from rejuv_plugin.integrations.verl import disk_mode
from rejuv_plugin.integrations.verl.driver_check import checked
from rejuv_plugin.integrations.verl.job import job_of
from rejuv_plugin.neurons.reset_set import from_json


@pytest.fixture
def root(tmp_path: Path) -> Path:
    base = tiny.save_base(tmp_path / "base")
    tiny.save_sft(tmp_path / "sft", base, scale=0.05)
    rows = [{"prompt": f"{a}+{a}=", "response": f"{2 * a} it is"} for a in range(4)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def config_of(root: Path, **reset: Any) -> Any:
    group = {**defaults(), "base_path": str(root / "base")}
    group["reset"] = group["reset"] | reset
    return OmegaConf.create(
        {
            "trainer": {"use_v1": True, "default_local_dir": str(root / "run"), "resume_mode": "disable"},
            "algorithm": {"use_kl_in_reward": False},
            "actor_rollout_ref": {
                "model": {"path": str(root / "sft"), "external_lib": None, "lora_rank": 0},
                "actor": {"use_kl_loss": False},
            },
            "rejuvenation": group,
        }
    )


def applied(config: Any) -> disk_mode.Outcome:
    job = job_of(config)
    assert job is not None
    return disk_mode.apply(job, config)


def test_the_job_trains_from_the_reset_checkpoint(root: Path, capsys: pytest.CaptureFixture) -> None:
    config = config_of(root, ratio=0.05, calibration=str(root / "data.jsonl"), positions=2)
    outcome = applied(config)
    made = Path(config.actor_rollout_ref.model.path)
    manifest = json.loads((made / "rejuvenation.json").read_text())
    assert outcome.metrics["training/rejuvenation/reset_share"] == manifest["reset"]["share"] > 0.05
    assert outcome.metrics["training/rejuvenation/omega"] == 1.0
    assert outcome.metrics["training/rejuvenation/reset_neurons"] == manifest["reset"]["neurons"]
    assert f"reset of {manifest['reset']['neurons']:,} neurons" in capsys.readouterr().out
    (file,) = (root / "run" / "rejuvenated").glob("reset-set-*.json")
    chosen = from_json(json.loads(file.read_text()), "set")
    module = "model.layers.1.self_attn.k_proj"
    rows = list(chosen.modules[module].indices)
    start, base = (load_file(path / "model.safetensors")[f"{module}.weight"] for path in (made, root / "base"))
    assert rows
    assert torch.equal(start[rows], base[rows])

    again = config_of(root, ratio=0.05, calibration=str(root / "data.jsonl"), positions=2)
    assert applied(again).metrics["training/rejuvenation/from_cache"] == 1.0
    assert again.actor_rollout_ref.model.path == str(made)

    reused = config_of(root, set_path=str(file))
    applied(reused)
    assert reused.actor_rollout_ref.model.path == str(made)


def test_without_a_ratio_the_job_is_fusion_alone(root: Path) -> None:
    config = config_of(root)
    outcome = applied(config)
    assert not any("reset" in name for name in outcome.metrics)
    assert not list((root / "run" / "rejuvenated").glob("reset-set-*"))


@pytest.mark.parametrize(
    ("reset", "says"),
    [
        ({"ratio": 0.05, "calibration": "gone.jsonl"}, "rejuvenation.reset.calibration: expected a .parquet or .jsonl"),
        ({"set_path": "gone.json"}, "rejuvenation.reset.set_path: expected a readable reset set"),
        ({"ratio": 0.05, "calibration": "data.jsonl", "include": "x"}, "rejuvenation.reset.include: "),
    ],
)
def test_bad_reset_settings_end_the_command_before_ray(
    root: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, reset: dict, says: str
) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as caught:
        checked(lambda config: None)(config_of(root, **reset))
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"rejuvenation: {says}")
    assert not (root / "run").exists()
