# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""`rejuv report` on the files of a diagnosis and of a tuning, whole and wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from html_page import checked
from made_up_diagnosis import diagnosis, tuning
from monitored_runs import write_run

from rejuv_plugin.cli import main
from rejuv_plugin.errors import InputError
from rejuv_plugin.report.diagnosis import write, write_tuning

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;\ud800\x00\x0b{}%s]]>--><!--</style></title>"
SHOWN = HOSTILE.replace("\ud800", "?").replace("\x00", "?").replace("\x0b", "?")


def without(value: dict, *path: Any) -> dict:
    inner = value
    for part in path[:-1]:
        inner = inner[part]
    del inner[path[-1]]
    return value


def changed(value: dict, new: Any, *path: Any) -> dict:
    inner = value
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = new
    return value


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: changed(d, 2, "format"), "metrics.json.format: expected 1, got 2"),
        (lambda d: changed(d, "tuning", "what"), "metrics.json.what: expected 'diagnosis', got 'tuning'"),
        (lambda d: without(d, "what"), "metrics.json.what: expected 'diagnosis', got 'nothing of ours'"),
        (
            lambda d: changed(d, [], "checkpoints"),
            "metrics.json.checkpoints: expected at least one checkpoint, got none",
        ),
        (
            lambda d: without(d, "checkpoints", 1, "name"),
            "metrics.json.checkpoints[1].name: expected a text, got nothing",
        ),
        (
            lambda d: changed(d, "x", "checkpoints", 1, "numbers", "entropy", "value"),
            "metrics.json.checkpoints[1].numbers.entropy.value: expected a number or null, got 'x'",
        ),
        (
            lambda d: changed(d, [1.0], "checkpoints", 1, "numbers", "entropy", "interval"),
            "metrics.json.checkpoints[1].numbers.entropy.interval: expected two numbers or null, got [1.0]",
        ),
        (
            lambda d: changed(d, True, "checkpoints", 1, "layers", "drift", 0),
            "metrics.json.checkpoints[1].layers.drift[0]: expected a number or null, got True",
        ),
        (
            lambda d: changed(d, [[1.0]], "checkpoints", 1, "modules", "drift", "values"),
            "metrics.json.checkpoints[1].modules.drift.values: expected 4 rows of 9 values, got rows of [1]",
        ),
        (
            lambda d: changed(d, 7, "checkpoints", 1, "verdict"),
            "metrics.json.checkpoints[1].verdict: expected an object, got 7",
        ),
    ],
)
def test_a_wrong_file_is_named_by_the_place(tmp_path: Path, change: Callable[[dict], dict], says: str) -> None:
    metrics = change(diagnosis(rungs=1, layers=2, positions=3))
    with pytest.raises(InputError) as caught:
        write(metrics, tmp_path / "report.html")
    assert str(caught.value).startswith(f"{says}. Fix: ")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_wrong_tuning_is_named_by_the_place(tmp_path: Path) -> None:
    for found, says in (
        (without(tuning(), "trace", 2, "alpha"), "tuning.json.trace[2].alpha: expected a number, got nothing"),
        (changed(tuning(), [], "trace"), "tuning.json.trace: expected at least one setting, got none"),
    ):
        with pytest.raises(InputError) as caught:
            write_tuning(found, tmp_path / "report.html")
        assert str(caught.value).startswith(f"{says}. Fix: ")


def rejuv(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["report", *arguments])
    return caught.value.code or 0


def put(directory: Path, **files: Any) -> Path:
    directory.mkdir()
    for name, value in files.items():
        (directory / f"{name}.json").write_text(json.dumps(value))
    return directory


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    metrics = diagnosis(rungs=1, layers=2, positions=3)
    one, other = put(tmp_path / "a", metrics=metrics), put(tmp_path / "b", tuning=tuning())
    output = tmp_path / "page.html"
    for given, kind in ((one, "diagnosis"), (one / "metrics.json", "diagnosis"), (other, "tuning")):
        assert rejuv(str(given), "--output", str(output)) == 0
        assert capsys.readouterr().out == f"1 {kind}: {output}\n"
        checked(output.read_text())
    run = write_run(tmp_path / "run", 0, 0.3, 0.1, steps=3)
    (run / "metrics.json").write_text("another program's")
    assert rejuv(str(run), "--output", str(output)) == 0
    assert capsys.readouterr().out == f"1 run, 0 alarms on: {output}\n"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["d", "t"], "DIR: expected runs, or one diagnosis, or one tuning, got a diagnosis in d, a tuning in t"),
        (["run", "t"], "DIR: expected runs, or one diagnosis, or one tuning, got a run in run, a tuning in t"),
        (["d", "d2"], "DIR: expected one diagnosis, got 2 of them"),
        (["both"], "DIR: expected one kind of result in a directory, got metrics.json and tuning.json in both"),
        (["broken"], "broken: expected a readable metrics.json, got Expecting value"),
        (["listed"], "listed: expected an object in metrics.json, got list"),
        (["gone/metrics.json"], "gone/metrics.json: expected a readable metrics.json, got [Errno 2]"),
        (["old"], "metrics.json.format: expected 1, got 0"),
    ],
)
def test_wrong_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, given: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    metrics = diagnosis(rungs=1, layers=2, positions=3)
    for name, value in (("d", metrics), ("d2", metrics), ("listed", []), ("old", metrics | {"format": 0})):
        put(tmp_path / name, metrics=value)
    put(tmp_path / "t", tuning=tuning())
    put(tmp_path / "both", metrics=metrics, tuning=tuning())
    (put(tmp_path / "broken") / "metrics.json").write_text("what?")
    write_run(tmp_path / "run", 0, 0.3, 0.1, steps=3)
    assert rejuv(*given, "--output", "out.html") == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"rejuv: {says}")
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "out.html").exists()
