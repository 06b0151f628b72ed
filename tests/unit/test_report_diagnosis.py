# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The pages of a diagnosis and of a tuning: verdict first, safe whatever is in the file, and small."""

import base64
import copy
import csv
import io
import math
import re
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree

import pytest
from html_page import Page, checked
from made_up_diagnosis import GROUP, diagnosis, tuning

from rejuv_plugin.report.diagnosis.page import page
from rejuv_plugin.report.diagnosis.tuning import tuning_page

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;\ud800\x00\x0b{}%s]]>--><!--</style></title>"
SHOWN = HOSTILE.replace("\ud800", "?").replace("\x00", "?").replace("\x0b", "?")


def saved(seen: Page, suffix: str) -> dict[str, str]:
    """The files behind the links, by name."""
    return {
        link["download"]: base64.b64decode(link["href"].partition(",")[2]).decode()
        for link in seen.links
        if link.get("download", "").endswith(suffix)
    }


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_the_verdict_comes_first_then_pictures_then_numbers() -> None:
    metrics = diagnosis()
    html = page(metrics)
    seen = checked(html)
    assert html == page(copy.deepcopy(metrics))
    levels = [each["verdict"]["level"] for each in metrics["checkpoints"] if each["verdict"]]
    assert {"ready", "over_trained"} <= set(levels)
    text = " ".join(seen.texts)
    assert f"{levels.count('ready')} of 8 checkpoints are ready for RL" in text
    headings = [" ".join(words) for _, words in seen.headings]
    order = ["Verdict", "Evidence", "Certainty", "Answers", "Drift of the weights", "Sharpness of the loss"]
    order += ["Neurons and ranks", "Numbers", "What the signals mean", "How it was measured"]
    assert [heading for heading in headings if heading in order] == order
    last = [each["name"] for each in metrics["checkpoints"] if (each["verdict"] or {}).get("level") == "ready"][-1]
    assert f"The last of them that is ready, in the order given: {last}" in re.sub(r"\s+", " ", text)
    for each in metrics["checkpoints"]:
        for reason in each["verdict"]["reasons"] if each["verdict"] else ():
            assert reason["source"] in text
    for signal in metrics["signals"]:
        assert signal["meaning"] in text


def test_every_picture_can_be_saved_and_heard() -> None:
    seen = checked(page(diagnosis(rungs=3, layers=4)))
    figures = seen.tags.count("figure")
    pictures, numbers = saved(seen, ".svg"), saved(seen, ".csv")
    # 18 along the ladder (22 signals, of which entropy, pass@ and ReDo share axes and p*(g) is a level), 2 by position,
    # 3 curves, 7 by layer, 2 maps for each of 3 checkpoints.
    assert figures == 18 + 2 + 3 + 7 + 6
    assert len([link for link in seen.links if link.get("download", "").endswith(".svg")]) == figures
    assert len(pictures) == figures, "names of files tell them apart"
    assert len(numbers) == figures + 1, "and the table of all numbers"
    assert seen.untitled == 0
    for name, text in pictures.items():
        root = ElementTree.fromstring(text)
        assert root.tag == f"{SVG}svg"
        assert root.find(f"{SVG}title") is not None, name
        assert "var(" not in text
        assert not re.search(r"(href|src)=.(?!data:image/png;base64,)", text)
        colours = set(re.findall(r"\.([cd]\d)\{", text))
        assert {word for each in re.findall(r'class="([^"]*)"', text) for word in each.split()} & {"c0", "d0", "base"} \
            <= colours | {"base"}  # fmt: skip


def test_files_hold_what_was_measured() -> None:
    metrics = diagnosis(rungs=3, layers=4, positions=20)
    numbers = saved(checked(page(metrics)), ".csv")
    head, *found = rows(numbers["ladder_Token_entropy.csv"])
    assert head == ["figure", "signal", "checkpoint", "value", "low", "high"]
    expected = [
        ["Token entropy", name, each["name"], *map(str, [e["value"], *e["interval"]])]
        for name in ("entropy_sampled", "entropy")
        for each in metrics["checkpoints"]
        for e in [each["numbers"][name]]
    ]
    assert found == expected
    head, *found = rows(numbers["numbers.csv"])
    drift = [row for row in found if row[0] == "drift"]
    assert [row[2] for row in drift] == [each["name"] for each in metrics["checkpoints"][1:]]
    assert drift[0][3:] == [str(metrics["checkpoints"][1]["numbers"]["drift"]["value"]), "", ""]
    grid = metrics["checkpoints"][2]["modules"]["drift"]
    head, *found = rows(numbers["drift_global_step_2.csv"])
    assert head == ["layer", *grid["columns"]]
    assert found == [
        [row, *("" if v is None else str(v) for v in line)]
        for row, line in zip(grid["rows"], grid["values"], strict=True)
    ]
    _, *found = rows(numbers["stable_rank__by_layer.csv"])
    assert [row[2] for row in found if row[1] == "base"] == ["0.0", "1.0", "3.0"], "a layer without a value is left out"


def test_thresholds_are_lines_in_the_pictures() -> None:
    seen = checked(page(diagnosis(rungs=3, layers=4)))
    pictures = saved(seen, ".svg")

    def levels(name: str) -> list[str]:
        return [
            t.text or "" for t in ElementTree.fromstring(pictures[name]).iter(f"{SVG}text") if t.get("class") == "level"
        ]

    assert levels("ladder_Token_entropy.svg") == ["bad below 0.18"]
    assert levels("ladder_pass_1_and_pass_k.svg") == [f"p*(g) = {1 - 2 ** (-1 / GROUP):.3g}"]
    assert levels("ladder_drift.svg") == []


def test_twenty_checkpoints_of_eighty_layers_keep_the_limit() -> None:
    text = page(diagnosis(rungs=20, layers=80, positions=4096))
    seen = checked(text)
    assert "global_step_1000" in " ".join(seen.texts)


def strings(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths to all strings."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from strings(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from strings(inner, (*path, index))
    elif isinstance(value, str):
        yield path


def poisoned(value: dict[str, Any]) -> dict[str, Any]:
    """Every text replaced, every signal renamed; all of it still told apart by a number at the end."""
    kept = {("what",)}
    for count, path in enumerate(list(strings(value))):
        inner = value
        for part in path[:-1]:
            inner = inner[part]
        if path not in kept and path[-1] != "bad" and path[-1] != "role":
            inner[path[-1]] = f"{HOSTILE}{count}"
    return value


def renamed(value: Any, keys: set[str]) -> Any:
    if isinstance(value, dict):
        return {f"{HOSTILE}{key}" if key in keys else key: renamed(inner, keys) for key, inner in value.items()}
    return [renamed(inner, keys) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("made", "draw"),
    [
        (lambda: diagnosis(rungs=2, layers=3, positions=5), page),
        (lambda: tuning((0.0, 0.02)), tuning_page),
    ],
)
def test_hostile_texts_are_only_text(made: Callable[[], dict], draw: Callable[[dict], str]) -> None:
    value = made()
    signals = {key for each in value.get("checkpoints", value.get("trace")) for part in ("numbers", "signals", "layers",
               "modules", "positions", "curves") for key in each.get(part, ())}  # fmt: skip
    html = draw(renamed(poisoned(value), signals | set(value["settings"])))
    seen = Page(html)
    for text in [html, *saved(seen, ".svg").values()]:
        assert "<script" not in text
        assert "<img" not in text
        assert not re.search("[\x00\x0b]", text)
    assert html.count("<style") == html.count("</style") == 1
    assert sum(SHOWN in text for text in seen.texts) > 20
    for text in saved(seen, ".svg").values():
        ElementTree.fromstring(text)
    assert any(HOSTILE.replace("\ud800", "?") in text.replace('""', '"') for text in saved(seen, ".csv").values())


def test_no_cell_of_a_saved_table_is_a_formula() -> None:
    metrics = diagnosis(rungs=2, layers=3)
    metrics["checkpoints"][1]["name"] = "=HYPERLINK(1)"
    metrics["checkpoints"][2]["name"] = " @SUM(A1)"
    for text in saved(checked(page(metrics)), ".csv").values():
        for row in rows(text):
            for cell in row:
                assert not cell.lstrip().startswith(("=", "@"))
                assert cell[:1] != "-" or math.isfinite(float(cell))


@pytest.mark.parametrize("value", [0.0, -1e-320, 1e300, -1e299, 1e-299, float("nan"), float("inf"), 2**70, None])
def test_any_number_can_be_drawn(value: float | None) -> None:
    def drowned(inner: Any, name: str = "") -> Any:
        if isinstance(inner, dict):
            return {key: drowned(each, key) for key, each in inner.items()}
        if isinstance(inner, list):
            return [drowned(each, name) for each in inner]
        swapped = isinstance(inner, float) and name not in ("alpha", "rho")
        return value if swapped else inner

    checked(page(drowned(diagnosis(rungs=2, layers=3, positions=5))))
    checked(tuning_page(drowned(tuning())))


def test_what_was_not_measured_is_left_out() -> None:
    metrics = diagnosis(rungs=1, layers=2)
    metrics |= {"prompts": None, "signals": []}
    for each in metrics["checkpoints"]:
        each |= {"layers": {}, "modules": {}, "positions": {}, "curves": {}}
        each["numbers"] = {"drift": each["numbers"]["drift"]}
        each["verdict"] = each["verdict"] and {
            "level": "unknown",
            "headline": "too little",
            "reasons": [],
            "advice": [],
        }
    seen = checked(page(metrics))
    text = " ".join(seen.texts)
    assert seen.tags.count("figure") == 1
    assert "global_step_1: not known" in text
    assert "What the signals mean" not in text
    metrics["checkpoints"] = metrics["checkpoints"][:1]
    metrics["checkpoints"][0]["numbers"] = {}
    assert "Measured, but not judged" in " ".join(checked(page(metrics)).texts)


@pytest.mark.parametrize(
    ("interval", "says"),
    [
        ([0.1, 0.3], "the interval crosses the threshold"),
        (None, "no interval: one example does not tell how sure that is"),
        ([0.29, 0.31], "too few examples to be sure"),
    ],
)
def test_a_finding_that_is_not_clear_says_why(interval: list[float] | None, says: str) -> None:
    metrics = diagnosis(rungs=1, layers=2)
    (reason, other, *_) = metrics["checkpoints"][1]["verdict"]["reasons"]
    reason |= {"value": 0.3, "interval": interval, "threshold": 0.18, "met": False, "clear": False}
    other |= {"value": 0.3, "interval": interval, "threshold": 0.18, "met": True, "clear": False, "says": "by heart"}
    texts = checked(page(metrics)).texts
    assert f"on the good side, but {says}" in texts
    assert f"by heart (not sure: {says})" in texts


def test_what_is_not_judged_says_why() -> None:
    metrics = diagnosis(rungs=1, layers=2)
    metrics["checkpoints"][1]["verdict"]["not_judged"] = [{"signal": "drift_spikes", "why": "it is <rounding>"}]
    assert "Not judged: drift_spikes . It is <rounding>." in " ".join(" ".join(checked(page(metrics)).texts).split())


def test_a_level_of_a_later_version_is_shown_as_it_is() -> None:
    metrics = diagnosis(rungs=2, layers=2)
    metrics["checkpoints"][1]["verdict"]["level"] = "doubtful"
    assert "doubtful" in checked(page(metrics)).texts


# A tuning


def test_a_tuning_says_its_choice_first() -> None:
    found = tuning()
    seen = checked(tuning_page(found))
    text = " ".join(seen.texts)
    assert f"alpha {found['choice']['alpha']:g}" in seen.texts
    assert (
        text.index("58% to be the best of the 3 settings that nothing stopped")
        < text.rindex("Settings compared")
        < text.rindex("Every setting")
    )
    assert "+0.011 (-0.02 to +0.043): cannot be told from it" in text
    assert sum(word.startswith("chosen: ") for word in seen.texts) == 6, "objective, three signals, two of the cost"
    head, *rest = rows(saved(seen, ".csv")["settings.csv"])
    assert len(rest) == len(found["trace"])
    assert [row[head.index("value")] for row in rest] == [str(trial["value"]) for trial in found["trace"]]
    _, *drawn = rows(saved(seen, ".csv")["objective.csv"])
    latest = {trial["alpha"]: trial for trial in found["trace"]}
    assert [row[2:4] for row in drawn] == [[str(a), str(latest[a]["value"])] for a in sorted(latest)]


def test_a_tuning_of_rho_alone_is_drawn_over_rho() -> None:
    found = tuning((0.0, 0.02, 0.05))
    found["trace"] = [trial for trial in found["trace"] if trial["alpha"] == 0.5]
    seen = checked(tuning_page(found))
    assert "rho (share of neurons that are reset)" in seen.texts
    _, *drawn = rows(saved(seen, ".csv")["objective.csv"])
    assert [row[2] for row in drawn] == ["0.0", "0.02", "0.05"]
