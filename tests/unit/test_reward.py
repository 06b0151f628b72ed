# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A user's reward function is loaded and called as verl does."""

from pathlib import Path

import pytest

from rejuv_plugin.errors import InputError
from rejuv_plugin.probe.answers import Answers
from rejuv_plugin.probe.reward import load_reward, scores, try_out
from rejuv_plugin.probe.tasks import Task

TASK = Task([{"role": "user", "content": "1+1="}], [1, 2], "sums", "2", {"index": 3})
CODE = """
import asyncio, math
from dataclasses import dataclass

@dataclass
class Kept:
    value: float

def plain(data_source, solution_str, ground_truth, extra_info):
    assert (data_source, ground_truth, extra_info) == ("sums", "2", {"index": 3})
    return solution_str == ground_truth

def whole(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    return {"score": Kept(3).value, "acc": 0, "kwargs": kwargs}

async def slow(data_source, solution_str, ground_truth, extra_info=None):
    await asyncio.sleep(0)
    return 2

def with_scale(scale, **kwargs):
    return scale

def nan(**kwargs):
    return math.nan

def text(**kwargs):
    return {"accuracy": 1}

def fails(**kwargs):
    raise KeyError("theirs")

CONSTANT = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_reward.py"
    path.write_text(CODE)
    return path


def test_what_a_function_may_return(file: Path) -> None:
    found = {name: load_reward(f"{file}:{name}", "k") for name in ("plain", "whole", "slow")}
    assert [found["plain"](TASK, text) for text in ("2", "3")] == [1.0, 0.0]
    assert found["whole"](TASK, "") == 3.0
    assert found["slow"](TASK, "") == 2.0
    assert load_reward(f"{file}:with_scale", "k", scale=0.5)(TASK, "") == 0.5


def test_scores_of_all_answers(file: Path) -> None:
    texts = [["2", "3", "2"], ["3", "3", "3"]]
    answers = Answers(texts, [], [], [], [])
    ticks: list[tuple[int, int]] = []
    found = scores(answers, [TASK, TASK], load_reward(f"{file}:plain", "k"), lambda *tick: ticks.append(tick))
    assert ticks == [(done, 6) for done in range(7)]
    assert found.tolist() == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("{}", "expected FILE.py:FUNCTION, a file that is there"),
        ("{}:", "expected FILE.py:FUNCTION"),
        ("gone.py:plain", "expected FILE.py:FUNCTION"),
        ("{}:absent", "expected a function absent in"),
        ("{}:CONSTANT", "expected a function CONSTANT in"),
    ],
)
def test_what_is_not_there(file: Path, spec: str, says: str) -> None:
    with pytest.raises(InputError, match=rf"^--reward: {says}"):
        load_reward(spec.format(file), "--reward")


def test_another_signature_is_known_before_anything_is_answered(file: Path) -> None:
    file.write_text(
        "def few(solution_str):\n    return 1\n\ndef more(data_source, weight, **kwargs):\n    return weight\n"
    )
    with pytest.raises(InputError, match=r"^k: expected a function of data_source, .*got few in .*unexpected keyword"):
        load_reward(f"{file}:few", "k")
    with pytest.raises(InputError, match=r"^k: .*missing a required argument: 'weight'"):
        load_reward(f"{file}:more", "k")
    assert load_reward(f"{file}:more", "k", weight=2)(TASK, "") == 2


def test_a_file_that_ends_the_process(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import sys\n\nsys.exit(3)\n")
    with pytest.raises(InputError, match=r"^k: expected a file that Python can run, .*SystemExit: 3"):
        load_reward(f"{tmp_path}/script.py:f", "k")


def test_a_file_that_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    for _ in range(2):
        with pytest.raises(InputError, match=r"^k: expected a file that Python can run, .*ModuleNotFoundError"):
            load_reward(f"{tmp_path}/broken.py:f", "k")


def test_a_result_that_is_no_number(file: Path) -> None:
    for name in ("nan", "text"):
        with pytest.raises(InputError, match=r"^k: expected a finite number, or a mapping with one under score"):
            load_reward(f"{file}:{name}", "k")(TASK, "")
    with pytest.raises(KeyError, match="theirs"):
        load_reward(f"{file}:fails", "k")(TASK, "")


def test_a_function_that_fails_is_found_before_models_are_loaded(file: Path) -> None:
    fails = load_reward(f"{file}:fails", "k")
    got = rf"KeyError: .*theirs.* \(line \d+ of {file.name}\)"
    says = rf"^k: expected a function that scores an answer, got {got}. Fix: mend it"
    with pytest.raises(InputError, match=says):
        try_out(fails, TASK, "k")
    with pytest.raises(InputError, match=r"^k: expected a finite number"):
        try_out(load_reward(f"{file}:nan", "k"), TASK, "k")
