# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Tables that a screen reader can walk through, and that scroll by themselves where they do not fit."""

from collections.abc import Iterable, Sequence

from .text import safe


class Html(str):
    """Text that is HTML already, made by this package of `safe` parts."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kinds: Sequence[str], says: str) -> str:
    """An HTML table; the first cell of a row is its heading.

    Args:
        head: the columns' headings.
        rows: cells, `Html` or any other text.
        kinds: the columns' classes.
        says: what the table is, for those who do not see it.
    """
    top = "".join(f'<th scope="col" class="{kind}">{safe(name)}</th>' for name, kind in zip(head, kinds, strict=True))
    body = "".join(_row(row, kinds) for row in rows)
    found = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide" role="region" aria-label="{safe(says)}" tabindex="0">{found}</div>'


def _row(row: Sequence[str], kinds: Sequence[str]) -> str:
    first, *rest = (cell if isinstance(cell, Html) else safe(cell) for cell in row)
    cells = "".join(f'<td class="{kind}">{cell}</td>' for cell, kind in zip(rest, kinds[1:], strict=True))
    return f'<tr><th scope="row" class="{kinds[0]}">{first}</th>{cells}</tr>'
