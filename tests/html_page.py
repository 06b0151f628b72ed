# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A reader of pages that accepts only what a report may hold: nothing loads or runs, and headings are in order."""

import re
from html.parser import HTMLParser
from itertools import pairwise

from rejuv_plugin.report.page.document import LIMIT

VOID = {"meta", "line", "polyline", "polygon", "circle", "path", "image", "rect"}
ATTRIBUTES = {
    *(
        "charset",
        "name",
        "content",
        "http-equiv",
        "lang",
        "id",
        "class",
        "href",
        "download",
        "open",
        "scope",
        "tabindex",
    ),
    *("viewbox", "role", "aria-labelledby", "aria-label", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "d"),
    *("width", "height", "points", "text-anchor", "preserveaspectratio", "transform"),
}
DATA = ("data:text/csv;base64,", "data:image/png;base64,", "data:image/svg+xml;base64,")


class Page(HTMLParser):
    """Checks tags as it reads; keeps texts, links and figures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.links: list[dict] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.headings: list[tuple[int, list[str]]] = []
        self.untitled = 0
        """SVG elements that do not begin with a title."""
        self.feed(html)
        self.close()
        assert not self.open
        assert len(set(self.ids)) == len(self.ids)
        assert set(self.references) <= set(self.ids)
        levels = [level for level, _ in self.headings]
        assert levels.count(1) == 1 == levels[0]
        assert all(after <= before + 1 for before, after in pairwise(levels)), "no level is left out"
        assert [tag for tag in self.tags if tag in ("header", "nav", "main", "footer")] == [
            *("header", "nav", "main", "footer")
        ]
        assert self.links[0]["href"] == "#main", "a link past the menu"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.tags and self.tags[-1] == "svg":
            self.untitled += tag != "title"
        self.tags.append(tag)
        values = dict(attrs)
        assert tag not in ("script", "iframe", "img", "object", "base", "form", "link")
        assert values.keys() <= ATTRIBUTES, values.keys() - ATTRIBUTES
        if "id" in values:
            self.ids.append(values["id"])
        self.references += (values.get("aria-labelledby") or "").split()
        if tag == "a":
            self.links.append(values)
            if values["href"].startswith("#"):
                self.references.append(values["href"][1:])
        if "href" in values:
            assert values["href"].startswith(("#", *DATA))
        if tag == "th":
            assert values["scope"] in ("col", "row")
        if tag in ("svg", "nav"):
            assert values.get("role", "") == ("img" if tag == "svg" else "")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), []))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.headings and any(re.fullmatch("h[1-6]", tag) for tag in self.open):
            self.headings[-1][1].append(data)


def checked(html: str) -> Page:
    assert html.startswith("<!DOCTYPE html>")
    assert len(html.encode()) < LIMIT
    assert not re.search(r"https?:|url\(|@import|src=", html)
    assert not re.search(r"\b(nan|inf)\b", re.sub('base64,[^"]*', "", html))
    return Page(html)
