# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint a run started from, kept beside its verl checkpoints, so that a resumed run is the same run.

verl's checkpoints hold the trained weights but not the KL reference, and with Megatron LoRA only the adapter. A run
resumed with another alpha would train against another reference and say nothing.
"""

import json
import os
from pathlib import Path
from typing import Any

from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

from ...errors import InputError

NAME = "rejuvenation_run.json"


def check(config: Any, key: str) -> None:
    """Compare the content key ``key`` with the record of the run that verl is about to resume, if it is.

    Raises:
        InputError: that run started from another checkpoint, or without Rejuvenation.
    """
    folder = _resumed_from(config.trainer)
    if folder is None:
        return
    record = folder.parent / NAME
    started_from = json.loads(record.read_text())["key"] if record.exists() else None
    if started_from != key:
        was = f"rejuvenated checkpoint {started_from[:16]}" if started_from else "a model without rejuvenation"
        raise InputError(
            "rejuvenation",
            f"the settings and inputs that the run in {folder.parent} started from ({was})",
            f"rejuvenated checkpoint {key[:16]}",
            "use the settings it started with, or start a new run: another trainer.default_local_dir or "
            "trainer.resume_mode=disable",
        )


def write(config: Any, key: str) -> None:
    """Record that the run starts from ``key``, unless it resumes: then `check` found it recorded where it came from."""
    if _resumed_from(config.trainer) is not None:
        return
    record = Path(config.trainer.default_local_dir).absolute() / NAME
    record.parent.mkdir(parents=True, exist_ok=True)
    partial = record.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps({"key": key}) + "\n")
    partial.replace(record)


def _resumed_from(trainer: Any) -> Path | None:
    """The ``global_step_N`` directory that verl's ``_load_checkpoint`` is about to load, if any."""
    if trainer.resume_mode == "resume_path":
        return Path(trainer.resume_from_path).absolute()
    if trainer.resume_mode == "auto":
        latest = find_latest_ckpt_path(os.path.abspath(trainer.default_local_dir))
        return Path(latest) if latest else None
    return None
