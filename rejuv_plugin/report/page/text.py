# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Text that is safe in a page, and numbers as text."""

import html
from collections.abc import Sequence

MINUS = "\N{MINUS SIGN}"


def safe(text: object) -> str:
    """``text`` for HTML and SVG, in an element or a quoted attribute.

    What UTF-8 or XML cannot say becomes a question mark: one such letter would make a saved SVG unreadable.
    """
    said = str(text).encode("utf-8", "replace").decode("utf-8")
    return html.escape("".join(letter if _in_xml(letter) else "?" for letter in said), quote=True)


def _in_xml(letter: str) -> bool:
    return (letter >= " " or letter in "\t\n\r") and not "\x7f" <= letter <= "\x9f" and letter not in "\ufffe\uffff"


def short(value: float | None) -> str:
    """A number for a table."""
    return "-" if value is None else f"{value:.4g}"


def between(value: float | None, interval: Sequence[float] | None) -> str:
    """A number and its interval for a table."""
    if value is None or interval is None:
        return short(value)
    return f"{short(value)} ({' to '.join(f'{end:.3g}' for end in interval)})"


def without_range(unit: str) -> str:
    """A unit for an axis: ``nats`` of ``nats, >= 0``."""
    return unit.partition(",")[0] or "value"


def clipped(text: str, most: int) -> str:
    """The end of ``text``, which tells names of a family apart, in at most ``most`` letters."""
    return text if len(text) <= most else "\N{HORIZONTAL ELLIPSIS}" + text[1 - most :]


def clipped_end(text: str, most: int) -> str:
    """The beginning of ``text``, in at most ``most`` letters."""
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def counted(number: int, what: str) -> str:
    """``3 runs``, ``1 run``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
