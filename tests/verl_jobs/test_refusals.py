# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A command that cannot work ends with one line before Ray starts; a job that would lose the plugin ends too."""

from pathlib import Path

from verl_jobs.job import CPU_ALONE, Job


def refused(models: Path, directory: Path, *overrides: str) -> str:
    """Run the command; it must end with code 2, start nothing and write nothing but its log. Returns our line."""
    job = Job(directory, models / "sft", models / "data", overrides=["+rejuvenation=default", *overrides])
    assert job.wait(job.start(), timeout=300) == 2, job.log[-3000:]
    assert "Started a local Ray instance" not in job.log
    assert not (directory / "checkpoints").exists()
    (line,) = [line for line in job.log.splitlines() if line.startswith("rejuvenation: ")]
    assert "Traceback" not in job.log
    return line


def test_bad_input_ends_with_one_line(models: Path, tmp_path: Path) -> None:
    """As much else does that is wrong: plugin/test_driver_check.py."""
    line = refused(models, tmp_path, f"rejuvenation.base_path={models}/base", "+rejuvenation.fusion.alhpa=0.5")
    assert line.startswith("rejuvenation: rejuvenation.fusion.alhpa: expected ")
    assert " Fix: " in line


def test_without_the_plugin_the_command_fails(models: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, models / "sft", models / "data", plugins=CPU_ALONE)
    job.overrides = ["+rejuvenation=default", f"rejuvenation.base_path={models}/base"]
    assert job.wait(job.start(), timeout=300) != 0
    assert "Could not override 'rejuvenation.base_path'" in job.log
    assert "Started a local Ray instance" not in job.log


def test_a_trainer_without_the_plugin_does_not_train(models: Path, tmp_path: Path) -> None:
    """The command's machine has the plugin, Ray's processes do not load it: verl alone would train plain SFT."""
    job = Job(tmp_path, models / "sft", models / "data")
    job.overrides = [
        "+rejuvenation=default",
        f"rejuvenation.base_path={models}/base",
        f"+ray_kwargs.ray_init.runtime_env.env_vars.VERL_USE_EXTERNAL_PLUGINS={CPU_ALONE}",
    ]
    assert job.wait(job.start()) != 0
    assert "expected the plugin to be loaded in the process that runs the trainer" in job.log
    assert not (tmp_path / "metrics.jsonl").exists()
