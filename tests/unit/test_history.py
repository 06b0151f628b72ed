# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What monitors keep of a run: nothing is lost but what a resume made again, and a killed run's last line."""

import json
import math
from pathlib import Path

import pytest

from rejuv_plugin.errors import InputError
from rejuv_plugin.monitors.history import ALARMS, PLASTICITY, History, read_alarms, read_steps, step_record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / PLASTICITY


def add(history: History, *steps: int, value: float = 1.0) -> None:
    for step in steps:
        history.add(step_record(step, {"a": value}, {}))


def read(path: Path) -> list[tuple[int, float]]:
    return [(record["step"], record["metrics"]["a"]) for record in read_steps(path, "RUN")]


def test_what_is_written_is_read(path: Path) -> None:
    history = History(path)
    layers = {"b": [1.0, math.nan, 3.0]}
    history.add(step_record(1, {"a": 0.1, "lost": math.inf, "gone": math.nan}, layers))
    assert read_steps(path, "RUN") == [{"step": 1, "metrics": {"a": 0.1}, "layers": {"b": [1.0, None, 3.0]}}]


def test_each_line_is_there_at_once(path: Path) -> None:
    history = History(path)
    for step in range(1, 4):
        add(history, step)
        assert len(path.read_text().splitlines()) == step


def test_a_resume_rewinds_and_removes_nothing(path: Path) -> None:
    add(History(path), 1, 2, 3, 4, 5)
    first = path.read_bytes()
    again = History(path, resumed_at=3)
    assert read(path) == [(1, 1.0), (2, 1.0), (3, 1.0)]
    add(again, 4, value=2.0)
    assert read(path) == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0)]
    add(History(path, resumed_at=1), 2, value=3.0)
    assert read(path) == [(1, 1.0), (2, 3.0)]
    add(History(path), 1, value=4.0)
    assert read(path) == [(1, 4.0)], "a run that starts anew in the same directory"
    assert path.read_bytes().startswith(first)


def test_the_last_line_of_a_step_counts(path: Path) -> None:
    history = History(path)
    add(history, 1, 2)
    add(history, 1, value=5.0)
    assert read(path) == [(1, 5.0), (2, 1.0)]


def test_killed_at_every_byte_of_the_last_line(path: Path) -> None:
    add(History(path), 1, 2, 3)
    whole = path.read_bytes()
    start = len(b"".join(whole.splitlines(keepends=True)[:2]))
    for length in range(start, len(whole)):
        path.write_bytes(whole[:length])
        complete = length == len(whole) - 1
        assert read(path) == [(1, 1.0), (2, 1.0)] + [(3, 1.0)] * complete
        add(History(path, resumed_at=2), 3, 4, value=2.0)
        assert read(path) == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]
        assert path.read_bytes().startswith(whole[:length])


def test_a_disk_that_was_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(path)
    add(history, 1, 2)

    class Full:
        """Of which the first ten bytes still fit."""

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, text: str) -> None:
            with open(path, "a") as file:
                file.write(text[:10])
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *_, **__: Full())
        for step in (3, 4):
            with pytest.raises(OSError, match="No space"):
                add(history, step)
    add(history, 5, 6)
    assert [step for step, _ in read(path)] == [1, 2, 5, 6]


def test_alarms_of_one_step_and_of_a_rewound_one(tmp_path: Path) -> None:
    path = tmp_path / ALARMS
    assert read_alarms(path, "RUN") == []

    def entry(step: int, name: str) -> dict:
        return {"step": step, "name": name, "event": "raised", "since": 1, "seen": "x", "why": "y", "try": "z"}

    history = History(path)
    history.add(entry(3, "one"))
    history.add(entry(3, "two"))
    history.add(entry(9, "one"))
    assert [(a["step"], a["name"]) for a in read_alarms(path, "RUN")] == [(3, "one"), (3, "two"), (9, "one")]
    History(path, resumed_at=5).add(entry(7, "two"))
    assert [(a["step"], a["name"]) for a in read_alarms(path, "RUN")] == [(3, "one"), (3, "two"), (7, "two")]


GOOD = json.dumps(step_record(1, {"a": 1.0}, {}))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "expected a readable plasticity.jsonl"),
        ("", "expected at least one step"),
        (GOOD[:-5], "expected at least one step"),
        ('{"resumed_at": 3}\n', "expected at least one step"),
        ("not JSON\n" + GOOD, ":1"),
        (GOOD + "\n{}\n" + GOOD, ":2"),
        (GOOD + "\n[1]\n" + GOOD, ":2"),
        ('{"step": -1, "metrics": {}}\n' + GOOD, ":1"),
        ('{"step": true, "metrics": {}}\n' + GOOD, ":1"),
        ('{"step": 1e3, "metrics": {}}\n' + GOOD, ":1"),
        (f'{{"step": {10**40}, "metrics": {{}}}}\n' + GOOD, ":1"),
        ('{"step": 1}\n', ":1"),
        ('{"step": 1, "metrics": {"a": "1"}}\n', ":1"),
        (f'{{"step": 1, "metrics": {{"a": {10**400}}}}}\n', ":1"),
        ('{"step": 1, "metrics": {"a": null}}\n', ":1"),
        ('{"step": 1, "metrics": {}, "layers": {"a": 1}}\n', ":1"),
        ('{"step": 1, "metrics": {}, "layers": {"a": ["x"]}}\n', ":1"),
        ("[" * 100_000 + "\n" + GOOD, ":1"),
        ("\udcff\n" + GOOD, ":1"),
    ],
)
def test_other_content_is_refused_by_line(path: Path, content: str | None, says: str) -> None:
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as caught:
        read_steps(path, "RUN")
    message = str(caught.value)
    assert message.startswith("RUN: expected ")
    assert says in message
    assert "Fix: " in message
    assert "\n" not in message


def test_a_number_that_json_does_not_know_is_not_written(path: Path) -> None:
    history = History(path)
    with pytest.raises(ValueError):
        history.add({"step": 1, "metrics": {"a": math.nan}})
    add(history, 1)
    assert read(path) == [(1, 1.0)]
