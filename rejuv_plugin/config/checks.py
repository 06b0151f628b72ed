# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What fields of several settings are checked for; errors name the field alone."""

import dataclasses
import math
from typing import Any

from ..errors import InputError

DEVICES = ("auto", "cpu", "cuda")
"""What settings named ``device`` may be."""


def one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse any other value than those that are allowed; the first of them is suggested."""
    if value not in allowed:
        raise InputError(key, " or ".join(allowed), repr(value), f"use {allowed[0]}")


def is_number(value: Any) -> bool:
    """A bool is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def finite(config: Any, *names: str) -> None:
    """Refuse infinities and NaN."""
    for name in names:
        value = getattr(config, name)
        if not math.isfinite(value):
            raise InputError(name, "a finite number", repr(value), _back_to_default(config, name))


def positive_int(config: Any, *names: str) -> None:
    """Refuse what is not an integer of at least 1."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(name, "a whole number above 0", repr(value), _back_to_default(config, name))


def seeds(config: Any, *names: str) -> None:
    """Refuse what is not an integer from 0 to 2^63 - 1."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
            raise InputError(name, "a whole number from 0 to 2^63 - 1", repr(value), f"use {_default(config, name)}")


def idle(config: Any, when: str, fix: str, *names: str, root: str = "") -> None:
    """Refuse what would do nothing: a setting that is given means something to whoever gave it.

    Args:
        config: settings; those at their default pass.
        when: they would do nothing.
        fix: what would give them a meaning.
        names: of the settings that would do nothing.
        root: before their names in the error.
    """
    for name in names:
        value, default = getattr(config, name), _default(config, name)
        if value != default:
            raise InputError(f"{root}{name}", f"its default, {default!r}, {when}", repr(value), f"remove it, or {fix}")


def names_of(config: Any, *but: str) -> list[str]:
    """All settings but these."""
    return [f.name for f in dataclasses.fields(config) if f.name not in but]


def _back_to_default(config: Any, name: str) -> str:
    default = _default(config, name)
    return "leave it out" if default is None else f"use {default}"


def _default(config: Any, name: str) -> Any:
    return type(config).__dataclass_fields__[name].default
