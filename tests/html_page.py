# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A reader of pages that accepts only what a report may hold."""

import re
from html.parser import HTMLParser

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
        self.feed(html)
        self.close()
        assert not self.open
        assert len(set(self.ids)) == len(self.ids)
        assert set(self.references) <= set(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
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
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def checked(html: str) -> Page:
    assert html.startswith("<!DOCTYPE html>")
    assert len(html.encode()) < LIMIT
    assert not re.search(r"https?:|url\(|@import|src=", html)
    assert not re.search(r"\b(nan|inf)\b", re.sub('base64,[^"]*', "", html))
    return Page(html)
