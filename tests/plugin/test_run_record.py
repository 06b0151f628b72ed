# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A run is resumed with what it started from, or not at all. verl's own lookup of the latest checkpoint is used."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from rejuv_plugin.errors import InputError
from rejuv_plugin.integrations.verl import run_record
from rejuv_plugin.integrations.verl.outcome import Outcome
from rejuv_plugin.integrations.verl.trainer import RejuvenationMixin


def config_of(directory: Path, mode: str = "auto", path: Path | None = None) -> Any:
    trainer = {"default_local_dir": str(directory), "resume_mode": mode, "resume_from_path": path and str(path)}
    return OmegaConf.create({"trainer": trainer})


def save(directory: Path, step: int, key: str | None) -> Path:
    """What a job leaves: verl's directory and tracker file, and our record when it was rejuvenated."""
    folder = directory / f"global_step_{step}"
    folder.mkdir(parents=True)
    if key:
        run_record.write(str(folder), key)
    (directory / "latest_checkpointed_iteration.txt").write_text(str(step))
    return folder


def test_a_new_run_may_start_from_anything(tmp_path: Path) -> None:
    run_record.check(config_of(tmp_path), "a" * 64)
    run_record.check(config_of(tmp_path), None)
    save(tmp_path, 2, "a" * 64)
    run_record.check(config_of(tmp_path, mode="disable"), "b" * 64)


@pytest.mark.parametrize("recorded", ["a" * 64, None])
@pytest.mark.parametrize("now", ["a" * 64, "b" * 64, None])
def test_a_resumed_run_must_start_from_the_same(tmp_path: Path, recorded: str | None, now: str | None) -> None:
    save(tmp_path, 2, recorded)
    if recorded == now:
        run_record.check(config_of(tmp_path), now)
        return
    with pytest.raises(InputError) as error:
        run_record.check(config_of(tmp_path), now)
    assert error.value.key == "rejuvenation"
    assert (recorded or "without rejuvenation")[:16] in str(error.value)
    assert (now or "without rejuvenation")[:16] in str(error.value)


def test_the_checkpoint_that_is_resumed_decides(tmp_path: Path) -> None:
    """Not what another run in the same directory was about to do, and not the directory it goes on in."""
    first = save(tmp_path / "one", 2, "a" * 64)
    run_record.check(config_of(tmp_path / "two", "resume_path", first), "a" * 64)
    save(tmp_path / "two", 4, "a" * 64)
    run_record.check(config_of(tmp_path / "two"), "a" * 64)
    save(tmp_path / "one", 6, "b" * 64)
    run_record.check(config_of(tmp_path / "one"), "b" * 64)


@pytest.mark.parametrize("now", ["rejuvenated", "sft"])
@pytest.mark.parametrize("recorded", ["rejuvenated", "sft", None])
@pytest.mark.parametrize("kl", [True, False])
def test_a_resumed_run_keeps_its_reference(tmp_path: Path, recorded: str | None, now: str, kl: bool) -> None:
    """Records of runs without a reference, and older ones, do not tell it."""
    folder = save(tmp_path, 2, None)
    run_record.write(str(folder), "a" * 64, ref=recorded)
    config = OmegaConf.merge(
        config_of(tmp_path),
        {"algorithm": {"use_kl_in_reward": False}, "actor_rollout_ref": {"actor": {"use_kl_loss": kl}}},
    )
    if not kl or recorded in (now, None):
        run_record.check(config, "a" * 64, now)
        return
    with pytest.raises(InputError, match=f"^rejuvenation.ref: expected '{recorded}', as in .*, got '{now}'"):
        run_record.check(config, "a" * 64, now)


@pytest.mark.parametrize("kl", [True, False])
def test_the_trainer_records_the_reference_that_there_is(tmp_path: Path, kl: bool) -> None:
    class Trainer:
        """Stands in for verl's, of which nothing else is asked here."""

        def _save_checkpoint(self) -> None:
            pass

    trainer = type("Extended", (RejuvenationMixin, Trainer), {"__init__": lambda self: None})()
    trainer.config = OmegaConf.merge(
        config_of(tmp_path), {"algorithm": {}, "actor_rollout_ref": {"actor": {"use_kl_loss": kl}}}
    )
    trainer.global_steps, trainer._rejuvenated = 3, Outcome("a" * 64, "sft", {})
    trainer._save_checkpoint()
    record = json.loads((tmp_path / "global_step_3" / run_record.NAME).read_text())
    assert record == {"key": "a" * 64} | ({"ref": "sft"} if kl else {})


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3", pytest.param("[" * 9999, id="nested")])
def test_a_damaged_record_is_one_clear_line(tmp_path: Path, content: str) -> None:
    folder = save(tmp_path, 2, "a" * 64)
    (folder / run_record.NAME).write_text(content)
    with pytest.raises(InputError, match="a damaged file"):
        run_record.check(config_of(tmp_path), "a" * 64)
