# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Options of a command as the settings that they are."""

from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import InputError

PATH = click.Path(path_type=Path)

Settings = TypeVar("Settings")

# Where an option is not named like its field.
_OPTIONS = {"ratio": "reset-ratio", "set_path": "reset-set"}


def as_options(settings: type[Settings], **values: Any) -> Settings:
    """Build settings whose errors name the options that they came by.

    Raises:
        InputError: as ``settings``.
    """
    try:
        return settings(**values)
    except InputError as error:
        option = _OPTIONS.get(error.key, error.key).replace("_", "-")
        raise InputError(f"--{option}", error.expected, error.got, error.fix) from None
