# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Reads values out of JSON that another version or another hand may have written: what is wrong is named."""

from collections.abc import Iterator
from typing import Any

from ...errors import InputError
from ..page.axes import drawable


class Fields:
    """A JSON object, and where it is in its file."""

    def __init__(self, value: Any, place: str) -> None:
        if not isinstance(value, dict):
            raise _unexpected(place, "an object", value)
        self._value: dict[str, Any] = value
        self._place = place

    def text(self, key: str, default: str | None = None) -> str:
        """A string; ``default`` where there is none, which without a default is an error."""
        return str(self._typed(key, str, "a text", default))

    def whole(self, key: str, default: int | None = None) -> int:
        """An integer."""
        return int(self._typed(key, int, "a whole number", default))

    def real(self, key: str, default: float | None = None) -> float:
        """A number that is there and can be drawn."""
        value = self.number(key)
        value = default if value is None else value
        if value is None:
            raise _unexpected(f"{self._place}.{key}", "a number", self._value.get(key))
        return value

    def truth(self, key: str, default: bool | None = None) -> bool:
        """True or false."""
        return bool(self._typed(key, bool, "true or false", default))

    def number(self, key: str) -> float | None:
        """A number that can be drawn; None for null, NaN, infinity, and what is not there."""
        return _number(self._value.get(key), f"{self._place}.{key}")

    def numbers(self, key: str) -> list[float | None]:
        """A list of numbers, as `number`."""
        return [_number(value, f"{self._place}.{key}[{index}]") for index, value in enumerate(self._list(key))]

    def interval(self, key: str = "interval") -> tuple[float, float] | None:
        """Two numbers, or None."""
        if self._value.get(key) is None:
            return None
        found = self.numbers(key)
        if len(found) != 2:
            raise _unexpected(f"{self._place}.{key}", "two numbers or null", self._value[key])
        low, high = found
        return None if low is None or high is None else (low, high)

    def texts(self, key: str) -> list[str]:
        """A list of strings; empty where there is none."""
        found = self._list(key)
        for index, value in enumerate(found):
            if not isinstance(value, str):
                raise _unexpected(f"{self._place}.{key}[{index}]", "a text", value)
        return found

    def grid(self, key: str) -> list[list[float | None]]:
        """A list of lists of numbers."""
        return [
            Fields({"values": row}, f"{self._place}.{key}[{index}]").numbers("values")
            for index, row in enumerate(self._list(key))
        ]

    def object(self, key: str) -> "Fields":
        """An object; an error where there is none."""
        return Fields(self._value.get(key), f"{self._place}.{key}")

    def maybe(self, key: str) -> "Fields | None":
        """An object, or None for null and what is not there."""
        return None if self._value.get(key) is None else self.object(key)

    def each(self, key: str) -> "list[Fields]":
        """A list of objects; empty where there is none."""
        return [Fields(value, f"{self._place}.{key}[{index}]") for index, value in enumerate(self._list(key))]

    def named(self, key: str) -> "Iterator[tuple[str, Fields]]":
        """The objects of an object, by name; none where there is none."""
        found = self.maybe(key)
        for name in found._value if found else ():
            yield str(name), found.object(name)  # type: ignore[union-attr]

    def names(self) -> list[str]:
        """Of all that it holds."""
        return [str(name) for name in self._value]

    def flat(self) -> list[tuple[str, str]]:
        """Everything inside, as dotted names and values in words."""
        return list(_flat(self._value, ""))

    def _typed(self, key: str, kind: type, expected: str, default: Any) -> Any:
        value = self._value.get(key, default)
        value = default if value is None else value
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise _unexpected(f"{self._place}.{key}", expected, value)
        return value

    def _list(self, key: str) -> list[Any]:
        value = self._value.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise _unexpected(f"{self._place}.{key}", "a list", value)
        return value


def _number(value: Any, place: str) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise _unexpected(place, "a number or null", value)
    return drawable(value)


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value)) or "-"
    else:
        yield name, "-" if value in (None, {}) else str(value)


def _unexpected(place: str, expected: str, got: Any) -> InputError:
    said = "nothing" if got is None else f"{got!r:.60}"
    # A name that somebody else chose may hold a new line.
    place = "".join(letter if letter.isprintable() else "?" for letter in place)
    return InputError(place, expected, said, "make it again with this version of rejuv, or give the file it wrote")
