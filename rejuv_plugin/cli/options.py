# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Options of a command as the settings that they are."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from ..errors import InputError

PATH = click.Path(path_type=Path)

# Where an option is not named like its field.
_OPTIONS = {"ratio": "reset_ratio", "set_path": "reset_set"}


def as_options(options: Mapping[str, Any], *settings: type) -> list[Any]:
    """Build settings from the options that are named like their fields; errors name the options.

    Args:
        options: of a command, as click names them. Each must be a field of one of the settings.
        settings: dataclasses whose fields without an option have a default.

    Returns:
        One of each, in their order.

    Raises:
        InputError: as ``settings``.
    """
    fields_of = [{_OPTIONS.get(f.name, f.name): f.name for f in fields(each)} for each in settings]
    for option in options:
        if sum(option in theirs for theirs in fields_of) != 1:
            raise TypeError(f"{option}: expected an option that is a field of one of {settings}")
    return [
        _made(each, {field: options[option] for option, field in theirs.items() if option in options})
        for each, theirs in zip(settings, fields_of, strict=True)
    ]


def _made(settings: type, values: Mapping[str, Any]) -> Any:
    try:
        return settings(**values)
    except InputError as error:
        option = _OPTIONS.get(error.key, error.key).replace("_", "-")
        raise InputError(f"--{option}", error.expected, error.got, error.fix) from None
