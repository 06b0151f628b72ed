# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Measured neurons belong to a run: it is resumed with the set that its checkpoint has.

Found again, on another device or from answers that were sampled again, they may be others where scores are nearly
equal.
"""

from typing import Any

from ...checkpoint.digest import sha256_file
from ...config import ResetConfig
from ...errors import InputError
from ...neurons.reset_set import ResetSet
from ...probe.measure import selection_settings
from ...probe.prompts import check_file
from . import run_record
from .planning import RESET_KEY


def of_run(config: Any, settings: ResetConfig) -> ResetSet | None:
    """The set in the checkpoint that verl is about to resume, if there is one.

    Whether base and SFT checkpoint are those of the run is left to `run_record.check`, and so are calibration data that
    this job does not name but would sample.

    Args:
        config: verl's configuration.
        settings: of the selection.

    Raises:
        InputError: the set was found with other settings or calibration data, so its run started from other weights.
    """
    kept = run_record.kept_set(config)
    if kept is None:
        return None
    theirs, ours = dict(kept.settings), selection_settings(settings)
    if settings.calibration:
        path = check_file(settings.calibration, f"{RESET_KEY}calibration")
        theirs["calibration"], ours["calibration"] = kept.inputs.get("calibration"), sha256_file(path)
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            raise InputError(
                f"{RESET_KEY}{name}",
                f"{theirs.get(name)!r}, as in the resumed run",
                repr(ours.get(name)),
                run_record.FIX,
            )
    return kept
