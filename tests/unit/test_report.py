# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The report of runs: one well-formed page that loads nothing, whatever the runs are called and have seen."""

import base64
import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from html_page import Page, checked
from monitored_runs import CATALOGUE, LAYERS, VALIDATION, steps_of, write_run

from rejuv_plugin.cli import main
from rejuv_plugin.errors import InputError
from rejuv_plugin.monitors.history import ALARMS, PLASTICITY, History, step_record
from rejuv_plugin.monitors.rules import RULES
from rejuv_plugin.report.runs.page import page
from rejuv_plugin.report.runs.run import load_runs


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    starts = {"over": (0, 0.15, 0.1), "rejuvenated": (1, 0.31, 0.5), "moderate": (2, 0.5, 0.6)}
    return [write_run(root / name, *how) for name, how in starts.items()]


def test_three_runs(three: list[Path]) -> None:
    html = page(load_runs(three, "DIR"), CATALOGUE)
    seen = checked(html)
    text = " ".join(seen.texts)
    assert html == page(load_runs(three, "DIR"), CATALOGUE)
    assert text.index("low_entropy_at_start") < text.index("At a glance") < text.rindex("Reward and validation")
    for part in ("over", "rejuvenated", "moderate", "1 alarm on", "no alarm", "Layers over time", "Glossary"):
        assert part in text
    for rule in RULES:
        assert rule.condition in text
    for row in CATALOGUE:
        assert row.meaning in text
        assert row.name in text
    # Layered: drift, gradients and three of the probe, for each run.
    assert sum("relative L2, by layer" in data for data in seen.texts) == 3
    saved = [link["download"].rpartition(".")[2] for link in seen.links if "download" in link]
    assert saved == ["svg", "csv"] * seen.tags.count("figure")
    assert seen.tags.count("svg") == seen.tags.count("desc") == seen.tags.count("figure")
    assert ":root{" in html
    assert "prefers-color-scheme:dark" in html


def test_downloads_are_what_was_measured(three: list[Path]) -> None:
    runs = load_runs(three, "DIR")
    links = {link["download"]: link["href"] for link in checked(page(runs, CATALOGUE)).links if "download" in link}

    def rows(name: str) -> list[list[str]]:
        return list(csv.reader(io.StringIO(base64.b64decode(links[name].partition(",")[2]).decode())))

    head, *entropy = rows("entropy.csv")
    assert head == ["metric", "run", "step", "value", "q05", "q95"]
    expected = [[run.name, str(step), str(v)] for run in runs for step, v in run.metrics["actor/plasticity/entropy"]]
    assert [row[1:4] for row in entropy] == expected
    head, *ranks = rows("probe_effective_rank_over.csv")
    assert head == ["step", *(f"layer {layer}" for layer in range(LAYERS))]
    assert [row[0] for row in ranks] == ["1", "11", "21", "31"]
    assert ranks[0][3] == "", "a layer without a value"
    assert [row[4] for row in ranks] == ["25.0"] * 4


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;\ud800\x00{}%s]]>--><!--"


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    directory = tmp_path / "x\"><img onerror='alert(3)'>&"
    history = History(directory / PLASTICITY)
    for step in range(1, 7):
        metrics = {
            HOSTILE: float(step),
            f"actor/plasticity/{HOSTILE}_layers/q50": 1.0 * step,
            "val-core/<b>/mean@1": 0.5,
        }
        history.add(step_record(step, metrics, {f"actor/plasticity/{HOSTILE}": [1.0, 2.0]}))
    told = {"step": 3, "name": HOSTILE, "event": "raised", "since": 1, "seen": HOSTILE, "why": HOSTILE, "try": HOSTILE}
    History(directory / ALARMS).add(told)
    rows = [replace(CATALOGUE[0], name=HOSTILE, unit=HOSTILE, meaning=HOSTILE, healthy=HOSTILE, source=HOSTILE)]
    html = page(load_runs([directory, write_run(tmp_path / "b", 0, 0.3, 0.1)], "DIR"), rows)
    seen = Page(html)
    assert "<script" not in html
    assert "<img" not in html
    assert "<b>/" not in html
    shown = HOSTILE.replace("\ud800", "?").replace("\x00", "?")
    assert sum(shown in text for text in seen.texts) > 8
    html.encode("utf-8")


def test_a_run_without_alarms_file_is_judged_by_the_rules(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", 0, 0.1, 0.1)
    (told,) = load_runs([directory], "DIR")
    (directory / ALARMS).unlink()
    (judged,) = load_runs([directory], "DIR")
    assert judged.alarms == told.alarms
    assert [alarm.name for alarm in judged.alarms] == ["low_entropy_at_start"]


def test_an_alarm_that_ended(tmp_path: Path) -> None:
    history = History(tmp_path / PLASTICITY)
    for step in range(1, 41):
        history.add(step_record(step, {"actor/plasticity/entropy_drop": 0.6 if 10 <= step < 20 else 0.1}, {}))
    (run,) = load_runs([tmp_path], "DIR")
    ((alarm),) = run.alarms
    assert (alarm.name, alarm.since, alarm.step, alarm.ended) == ("entropy_collapse", 10, 12, 24)
    text = " ".join(checked(page([run], ())).texts)
    assert "1 alarm, ended" in text
    assert "1 of 8 rules could judge (without their metrics: low_entropy_at_start" in text


@pytest.mark.parametrize("alarms", [True, False], ids=["alarms", "no alarms in the job"])
def test_a_run_that_is_too_short_to_judge_is_not_green(tmp_path: Path, alarms: bool) -> None:
    def shown(steps: int) -> str:
        directory = write_run(tmp_path / str(steps), 1, 0.31, 0.5, steps=steps)
        if not alarms:
            lines = [json.loads(line) for line in (directory / PLASTICITY).read_text().splitlines()]
            for line in lines:
                line["metrics"] = {name: v for name, v in line["metrics"].items() if "/alarm/" not in name}
            (directory / PLASTICITY).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return page(load_runs([directory], "DIR"), ())

    short, long = shown(1), shown(40)
    text = " ".join(checked(short).texts)
    assert "state fine" not in short.partition("</style>")[2]
    assert "no alarm yet" in text
    assert "2 of 8 rules could judge (not yet: low_entropy_at_start, no_signal, all_solved, " in text
    assert '<span class="state fine">no alarm</span>' in long
    assert "8 of 8 rules could judge." in " ".join(checked(long).texts)


def test_a_run_that_says_nothing_about_plasticity_is_not_called_healthy(tmp_path: Path) -> None:
    History(tmp_path / PLASTICITY).add(step_record(1, {"critic/score/mean": 0.1}, {}))
    text = " ".join(checked(page(load_runs([tmp_path], "DIR"), ())).texts)
    assert "not judged" in text
    assert "no alarm " not in text


@pytest.mark.parametrize(
    "values",
    [
        [0.0], [5.0], [-1e-320, 1e-320], [1e308, -1e308], [1e299, -1e299], [1e-299, 2e-299], [0.1, 0.1 + 1e-17],
        [1.0000000001, 1.0], [-5.0, -4.0], [6.2e-9, 7e-9], [123456.0, 123457.0], [1e15, 1e15 + 1],
        [float("1e999"), 1.0],
    ],
)  # fmt: skip
def test_any_numbers_can_be_drawn(tmp_path: Path, values: list[float]) -> None:
    with (tmp_path / PLASTICITY).open("w") as file:
        for step, value in enumerate(values, 2**40):
            line = {"step": step, "metrics": {"a": value, "b": 1.0}, "layers": {"c": [value, None]}}
            file.write(json.dumps(line) + "\n")
    checked(page(load_runs([tmp_path], "DIR"), ()))


def test_a_long_run_of_a_deep_model_keeps_the_limit(tmp_path: Path) -> None:
    runs = load_runs([write_run(tmp_path / "a", 0, 0.3, 0.1, steps=320, layers=40)], "DIR")
    many = [replace(runs[0], name=f"run {index}") for index in range(12)]
    text = " ".join(checked(page(many, CATALOGUE)).texts)
    assert "each point: mean over up to 2 steps" in text


def test_alarms_of_the_first_steps_are_on_the_picture_however_long_the_run(tmp_path: Path) -> None:
    history, told = History(tmp_path / PLASTICITY), History(tmp_path / ALARMS)
    for step in range(1, 2001):
        history.add(step_record(step, {"training/plasticity/zero_advantage_groups": 0.7}, {}))
    alarm = {"name": "zero_advantage", "event": "raised", "seen": "0.7", "since": 1, "step": 7}
    told.add(alarm)
    text = page(load_runs([tmp_path], "DIR"), ())
    assert 'class="mark' in text
    assert "Curves over steps 1 to 2000" in text


def test_the_validation_before_training_is_the_first(tmp_path: Path) -> None:
    """As where a run validates at its ends alone."""
    history = History(tmp_path / PLASTICITY)
    history.add(step_record(0, {VALIDATION: 0.361}, {}))
    for step in range(1, 41):
        history.add(step_record(step, {"critic/score/mean": 0.5} | ({VALIDATION: 0.826} if step == 40 else {}), {}))
    texts = " ".join(checked(page(load_runs([tmp_path], "DIR"), ())).texts)
    assert "0.361 (0) → 0.826 (40)" in texts
    assert "40 steps, 1 to 40" in texts
    # Begun anew in the same directory, without one.
    history = History(tmp_path / PLASTICITY)
    history.add(step_record(1, {"critic/score/mean": 0.5, VALIDATION: 0.4}, {}))
    texts = " ".join(checked(page(load_runs([tmp_path], "DIR"), ())).texts)
    assert "0.361" not in texts
    assert "0.4 (1)" in texts


def test_many_runs_lose_the_files_of_maps_before_points(tmp_path: Path) -> None:
    runs = load_runs([write_run(tmp_path / "a", 0, 0.3, 0.1, steps=300, layers=48)], "DIR")
    many = [replace(runs[0], name=f"run {index}") for index in range(8)]
    seen = checked(page(many, CATALOGUE))
    files = [link["download"] for link in seen.links if link.get("download", "").endswith(".csv")]
    assert not [name for name in files if "run_1" in name]
    assert [name for name in files if name.startswith("entropy")]
    assert "each point: mean" not in " ".join(seen.texts)


def test_what_no_page_can_hold_is_refused(three: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rejuv_plugin.report.page.document.LIMIT", 50_000)
    with pytest.raises(InputError) as caught:
        page(load_runs(three, "DIR"), CATALOGUE)
    assert str(caught.value).startswith("DIR: expected what fits on a page of 0.05 MB, got 3 runs. Fix: ")


def test_names_are_the_shortest_that_tell_runs_apart(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / part / "run", 0, 0.3, 0.1, steps=2) for part in ("a", "b")]
    assert [run.name for run in load_runs(paths, "DIR")] == ["a/run", "b/run"]
    assert [run.name for run in load_runs(paths[:1], "DIR")] == ["run"]


@pytest.mark.parametrize("ratio", ["update_ratio", "update_ratio_rounded"])
def test_the_gradient_norm_is_seen_beside_the_update_ratio(tmp_path: Path, ratio: str) -> None:
    history = History(tmp_path / "run" / PLASTICITY)
    for step in (1, 2):
        history.add(step_record(step, {f"actor/plasticity/{ratio}": 1e-3 * step, "actor/grad_norm": 1.0}, {}))
    seen = checked(page(load_runs([tmp_path / "run"], "DIR"), CATALOGUE))
    titles = [text for text in seen.texts if "gradient norm, together" in text]
    assert titles
    (saved,) = (link["href"] for link in seen.links if link.get("download", "").endswith("together.csv"))
    rows = [*csv.reader(io.StringIO(base64.b64decode(saved.partition(",")[2]).decode()))]
    assert {row[0] for row in rows[1:]} == {ratio, "actor/grad_norm"}


def rejuv(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["report", *arguments])
    return caught.value.code or 0


def test_the_command(three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "new" / "report.html"
    assert rejuv(*map(str, three), "--output", str(output)) == 0
    out, err = capsys.readouterr()
    assert out == f"3 runs, 1 alarm on: {output}\n"
    assert err == ""
    first = output.read_text()
    checked(first)
    assert "line: median over layers, band: 5 % to 95 %; dashed: the whole model" in first
    assert rejuv(str(three[0]), "--output", str(output)) == 0
    assert output.read_text() != first, "an older report is replaced"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda root: ["gone"], "gone: expected the directory of a run, got nothing there"),
        (lambda root: ["file"], "file: expected the directory of a run, got a file"),
        (lambda root: ["empty"], "empty: expected one of plasticity.jsonl, metrics.json, tuning.json in it, got none"),
        (lambda root: ["none"], "none: expected at least one step, got none in "),
        (lambda root: ["broken"], "broken: expected lines that the monitors wrote, got another at "),
        (lambda root: ["good", "broken_alarms"], "broken_alarms: expected lines that the monitors wrote, got another"),
        (lambda root: ["good", "./good"], "DIR: expected different runs, got the same directory twice"),
        (lambda root: ["good", "--output", "out.pdf"], "--output: expected a .html file, got out.pdf"),
        (
            lambda root: ["good", "--output", "other.html"],
            "--output: expected a new file, or an older report to replace",
        ),
        (lambda root: ["good", "--output", "folder.html"], "--output: expected a new file, or an older report"),
    ],
)
def test_wrong_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, make, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "none", "broken", "broken_alarms", "folder.html"):
        (tmp_path / name).mkdir()
    write_run(tmp_path / "good", 0, 0.3, 0.1, steps=3)
    write_run(tmp_path / "broken_alarms", 0, 0.3, 0.1, steps=3)
    (tmp_path / "broken_alarms" / ALARMS).write_text('{"step": 1}\n')
    (tmp_path / "none" / PLASTICITY).touch()
    (tmp_path / "broken" / PLASTICITY).write_text('<html>\n{"step": 1, "metrics": {}}\n')
    (tmp_path / "file").write_text("x")
    (tmp_path / "other.html").write_text("<html>mine</html>")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    arguments = make(tmp_path)
    assert rejuv(*arguments, *([] if "--output" in arguments else ["--output", "out.html"])) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"rejuv: {says}")
    assert "Fix: " in err
    assert err.count("\n") == 1
    assert out == ""
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_made_up_runs_are_like_real_ones() -> None:
    (step, metrics, layers), *_ = steps_of(0, 0.3, 0.1)
    assert step == 1
    assert {name for rule in RULES for name in rule.reads} <= metrics.keys()
    assert all(len(row) == LAYERS for row in layers.values())
