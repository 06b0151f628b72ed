# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The quickstart's reading of verl's metrics, and its watching of a run, on made-up files. No verl."""

import json
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "quickstart"
sys.path.insert(0, str(RECIPE))

import summarise  # noqa: E402
import watch  # noqa: E402

STEPS = 3


def metrics(step: int, shift: float) -> dict:
    data: dict[str, float] = {}
    if step in (0, STEPS):
        data |= {
            "val-core/nav_in/acc/mean@2": 0.25 + shift * step,
            "val-core/nav_in/acc/best@2/mean": 0.9,
            "val-aux/nav_in/score/mean@2": 0.9,
            "val-core/nav_out/acc/mean@2": 0.125,
        }
    if step > 0:
        data |= {"critic/score/mean": 0.3 + shift * step, "actor/entropy": 0.5 - 0.1 * step, "timing_s/step": 2.0}
    return {"step": step, "data": data}


def dump(path: Path, groups: list[tuple[str, list[float]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"uid": f"a-b_{index}_{sample}_0", "gts": problem, "score": score}
        for index, (problem, scores) in enumerate(groups)
        for sample, score in enumerate(scores)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_arm(directory: Path, arm: str, shift: float, exit_code: int = 0) -> None:
    directory.mkdir(parents=True)
    run = {"arm": arm, "exit_code": exit_code, "seconds": 61.5, "peak_memory_bytes": 3 * 2**30}
    (directory / "run.json").write_text(json.dumps(run | {"settings": {"ALPHA": "0.5"}}))
    lines = [json.dumps(metrics(step, shift)) + "\n" for step in range(STEPS + 1)]
    (directory / "metrics.jsonl").write_text("".join(lines))
    mixed, right, wrong = [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]
    dump(directory / "validation" / "0.jsonl", [("14:57", mixed), ("14:47", right), ("00:99", wrong)])
    after = [("14:57", mixed), ("14:47", mixed), ("00:99", mixed), ("01:99", right)]
    dump(directory / "validation" / f"{STEPS}.jsonl", after)
    for step in range(1, STEPS + 1):
        dump(directory / "rollouts" / f"{step}.jsonl", [("14:57", mixed), ("14:47", wrong)])


def test_an_arm_is_read_from_verls_files(tmp_path):
    make_arm(tmp_path / "over", "over", 0.1)
    result = summarise.read_arm(tmp_path / "over")
    assert result.accuracy_in == summarise.Change(0.25, pytest.approx(0.55))
    assert result.accuracy_in.gain == pytest.approx(0.3)
    assert result.accuracy_out == summarise.Change(0.125, 0.125)
    assert result.token_entropy == summarise.Change(pytest.approx(0.4), pytest.approx(0.2))
    assert result.gradient_share_in == summarise.Change(0.5, 1.0)
    assert result.gradient_share_out == summarise.Change(0.0, 0.5)
    assert result.gradient_share_curve == [0.5] * STEPS
    assert result.reward_curve == pytest.approx([0.4, 0.5, 0.6])
    assert (result.steps, result.group, result.seconds, result.peak_memory_gib) == (STEPS, 2, 61.5, 3.0)


def test_a_run_skips_failed_arms_and_becomes_table_numbers_and_picture(tmp_path, monkeypatch, capsys):
    make_arm(tmp_path / "rejuvenated", "rejuvenated", 0.2)
    make_arm(tmp_path / "over", "over", 0.1)
    make_arm(tmp_path / "moderate", "moderate", 0.1, exit_code=1)
    monkeypatch.setattr(sys, "argv", ["summarise.py", str(tmp_path), "--models-seconds", "130"])
    summarise.main()
    shown = capsys.readouterr().out
    assert "0.550" in shown
    assert "tensorboard --logdir" in shown
    saved = json.loads((tmp_path / "result.json").read_text())
    assert [arm["arm"] for arm in saved["arms"]] == ["over", "rejuvenated"]
    assert saved["models_seconds"] == 130
    text = (tmp_path / "result.md").read_text().splitlines()
    assert len({line.count("|") for line in text}) == 1
    assert text[3].startswith("| rejuvenated (alpha 0.5) then RL | 0.250 → 0.850 | +0.600 |")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_an_empty_run_is_an_error_with_its_place(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["summarise.py", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        summarise.main()
    assert stop.value.code == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_missing_metric_is_named():
    with pytest.raises(KeyError) as error:
        summarise.accuracy({"val-core/other/acc/mean@4": 0.5}, "nav_in")
    assert "nav_in" in str(error.value)
    assert "val-core/other/acc/mean@4" in str(error.value)


WRITES_METRICS = """
import json, sys, time
print("hello from verl")
with open(sys.argv[1], "w") as sink:
    for step in range(int(sys.argv[2]) + 1):
        data = {} if step == 0 else {"critic/score/mean": .5, "actor/entropy": .25, "timing_s/step": 2.0}
        sink.write(json.dumps({"step": step, "data": data}) + "\\n"); sink.flush(); time.sleep(.05)
sys.exit(int(sys.argv[3]))
"""


def run_watch(directory: Path, written: int, code: int) -> int:
    command = [sys.executable, "-c", WRITES_METRICS, str(directory / "metrics.jsonl"), str(written), str(code)]
    return watch.watch("over", 3, directory, command, poll=0.01)


def test_watch_shows_each_step_and_keeps_the_output(tmp_path, capsys):
    assert run_watch(tmp_path / "over", 3, 0) == 0
    shown = capsys.readouterr().out
    assert "step   2/3  reward 0.500  entropy 0.250  2.0 s/step  2 s left" in shown
    assert (tmp_path / "over" / "log.txt").read_text() == "hello from verl\n"
    assert json.loads((tmp_path / "over" / "run.json").read_text())["exit_code"] == 0


@pytest.mark.parametrize(("written", "code"), [(1, 3), (1, 0)])
def test_watch_reports_a_failure_and_a_run_that_stopped_early(tmp_path, capsys, written, code):
    assert run_watch(tmp_path / "over", written, code) != 0
    error = capsys.readouterr().err
    assert "hello from verl" in error
    assert str(tmp_path / "over" / "log.txt") in error
