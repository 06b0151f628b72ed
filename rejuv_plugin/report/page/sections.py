# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Headings of a page, and what goes under which."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """What has a name that begins with one of ``prefixes`` and is in no section above."""

    title: str
    blurb: str
    prefixes: tuple[str, ...]


def sorted_into(names: Iterable[str], sections: Sequence[Section]) -> list[tuple[Section, list[str]]]:
    """Sections that have something to show, in their order, each with its names, in theirs.

    Args:
        names: each another.
        sections: one of them takes any name.
    """
    found: list[tuple[Section, list[str]]] = [(section, []) for section in sections]
    for name in names:
        next(theirs for section, theirs in found if name.startswith(section.prefixes)).append(name)
    return [(section, theirs) for section, theirs in found if theirs]
