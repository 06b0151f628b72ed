# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What fields of several settings are checked for; errors name the field alone."""

import math
from typing import Any

from ..errors import InputError


def one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(key, " or ".join(allowed), repr(value), f"use {allowed[0]}")


def is_number(value: Any) -> bool:
    """A bool is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def finite(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not math.isfinite(value):
            raise InputError(name, "a finite number", repr(value), f"use {_default(config, name)}")


def whole(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(name, "a whole number above 0", repr(value), f"use {_default(config, name)}")


def _default(config: Any, name: str) -> Any:
    return type(config).__dataclass_fields__[name].default
