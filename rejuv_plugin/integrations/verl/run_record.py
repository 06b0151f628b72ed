# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a run started from, and its reference, kept in each of its verl checkpoints: a resumed run is the same run.

verl's checkpoints hold the trained weights but not the KL reference, and with Megatron LoRA only the adapter. A run
that is resumed with another alpha, or without Rejuvenation, would train against another reference and say nothing.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verl.trainer.ppo.utils import need_reference_policy
from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

from ...checkpoint import reset_file
from ...checkpoint.small_file import read_json, write_text
from ...errors import InputError
from ...neurons.reset_set import ResetSet

NAME = "rejuvenation_start.json"
SET_NAME = "rejuvenation_reset_set.json"
FIX = (
    "resume with the settings and inputs that run started with, or start a new one: another trainer.default_local_dir "
    "or trainer.resume_mode=disable"
)


def check(config: Any, key: str | None, ref: str | None = None) -> None:
    """Compare what this job starts from with the record in the checkpoint that verl is about to resume, if any.

    Args:
        config: verl's configuration.
        key: content key of the rejuvenated checkpoint; None for a job without Rejuvenation.
        ref: the setting ``rejuvenation.ref``. Looked at only where this job has a reference and the recorded one had.

    Raises:
        InputError: the checkpoint belongs to a run that started from something else, or had another reference.
    """
    folder = resumed_from(config.trainer)
    if folder is None:
        return
    record = _content(folder / NAME) if (folder / NAME).exists() else {}
    recorded = str(record["key"]) if record else None
    if recorded != key:
        raise InputError("rejuvenation", f"{_described(recorded)}, as in {folder}", _described(key), FIX)
    reference = record.get("ref")
    if reference and reference != ref and need_reference_policy(config):
        raise InputError("rejuvenation.ref", f"{reference!r}, as in {folder}", repr(ref), FIX)


def write(
    folder: str,
    key: str | None,
    reset_set: ResetSet | None = None,
    tuned: Mapping[str, Any] | None = None,
    ref: str | None = None,
) -> None:
    """Record in the checkpoint directory ``folder``, which need not exist yet, that its run started from ``key``, the
    neurons that were found, if they were, how alpha was chosen, if it was, and what the reference is, if there is one.
    """
    if reset_set:
        reset_file.save(reset_set, Path(folder) / SET_NAME)
    record = {"key": key} | ({"tuned": dict(tuned)} if tuned else {}) | ({"ref": ref} if ref else {})
    write_text(Path(folder) / NAME, json.dumps(record) + "\n")


def kept_set(config: Any) -> ResetSet | None:
    """The reset set in the checkpoint that verl is about to resume, if there is one."""
    folder = resumed_from(config.trainer)
    path = folder / SET_NAME if folder else None
    return reset_file.load(path, str(path)) if path and path.exists() else None


def kept_choice(config: Any) -> dict[str, Any] | None:
    """How alpha was chosen, from the checkpoint that verl is about to resume; None if it was not, or if there is none.

    Raises:
        InputError: the record is damaged.
    """
    folder = resumed_from(config.trainer)
    record = folder / NAME if folder else None
    if record is None or not record.exists():
        return None
    tuned = _content(record).get("tuned")
    if tuned is not None and not isinstance(tuned.get("alpha"), float):
        raise _damaged(record)
    return tuned


def _content(record: Path) -> dict[str, Any]:
    try:
        content = read_json(record)
        _ = content["key"], (content.get("tuned") or {}).keys()
        return content
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _damaged(record) from None


def _damaged(record: Path) -> InputError:
    return InputError(str(record), "a record with a key", "a damaged file", FIX)


def _described(key: str | None) -> str:
    return f"a start from rejuvenated checkpoint {key[:16]}" if key else "a start without rejuvenation"


def resumed_from(trainer: Any) -> Path | None:
    """The ``global_step_N`` directory that verl's ``_load_checkpoint`` is about to load, if any."""
    if trainer.resume_mode == "resume_path" and trainer.resume_from_path:
        return Path(trainer.resume_from_path).absolute()
    if trainer.resume_mode == "auto":
        latest = find_latest_ckpt_path(os.path.abspath(trainer.default_local_dir))
        return Path(latest) if latest else None
    return None
