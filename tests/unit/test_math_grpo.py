# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The math recipe: rewards by Math-Verify itself, and data out of files as others write them."""

import json
import os
import signal
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "recipes" / "math_grpo"))

import prepare_math
from math_reward import compute_score
from verl.utils.reward_score import math_verify as scorer

GSM8K = {"question": "Two and 1,000?", "answer": "Add them: 2+1,000=<<2+1000=1002>>1,002.\n#### 1,002"}
IMITATED = "Add them: 2+1,000=1,002.\nThe final answer is $\\boxed{1002}$."


@pytest.mark.parametrize(
    ("answer", "score", "boxed"),
    [
        (r"Half of it: \boxed{0.5}", 1.0, 1.0),
        (r"\boxed{\dfrac{2}{4}}", 1.0, 1.0),
        (r"\boxed{1} no, \boxed{\frac12}.", 1.0, 1.0),
        (r"\boxed{\frac12} no, \boxed{1}", -1.0, 1.0),
        (r"It is $\frac{1}{2}$, not \boxed{3}", -1.0, 1.0),
        (r"It is \frac{1}{2}", -1.0, 0.0),
        (r"\boxed{\frac{1}{2", -1.0, 0.0),
        ("", -1.0, 0.0),
    ],
)
def test_the_last_box_counts(answer: str, score: float, boxed: float) -> None:
    expected = {"score": score, "acc": (score + 1) / 2, "boxed": boxed}
    assert compute_score("suite", answer, r"\frac{1}{2}") == expected


def test_a_pool_that_broke_is_replaced() -> None:
    right = (r"\boxed{0.5}", r"\frac{1}{2}")
    assert compute_score("suite", *right)["score"] == 1.0
    pool = scorer._get_pool()
    for pid in list(pool._processes):
        os.kill(pid, signal.SIGKILL)
    assert compute_score("suite", *right)["score"] == 1.0
    assert scorer._get_pool() is not pool
    assert compute_score("suite", r"\boxed{1}", r"\frac{1}{2}")["score"] == -1.0


def test_answers_as_data_sets_write_them() -> None:
    assert prepare_math.final_answer(GSM8K["answer"]) == "1002"
    assert prepare_math.final_answer(r"so \boxed{1}, or rather \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
    assert prepare_math.final_answer(" 33 ") == "33"


def prepare(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["prepare_math.py", *arguments])
    prepare_math.main()


def test_prompts_and_demonstrations_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, output = tmp_path / "gsm.jsonl", tmp_path / "made" / "rl.parquet"
    file.write_text("".join(json.dumps(GSM8K) + "\n" for _ in range(3)))
    prepare(monkeypatch, str(file), "--output", str(output), "--limit", "2")
    table = pd.read_parquet(output)
    assert len(table) == 2
    assert table["data_source"][0] == "gsm"
    assert table["reward_model"][0]["ground_truth"] == "1002"
    (message,) = table["prompt"][0]
    assert message == {"role": "user", "content": f"Two and 1,000?\n{prepare_math.INSTRUCTION}"}

    prepare(
        monkeypatch,
        str(output),
        "--output",
        str(tmp_path / "again.parquet"),
        "--question",
        "ability",
        "--answer",
        "ability",
    )
    assert pd.read_parquet(tmp_path / "again.parquet")["reward_model"][0]["ground_truth"] == "math"

    prepare(monkeypatch, str(file), "--sft", "--output", str(tmp_path / "sft.parquet"))
    asked, answered = pd.read_parquet(tmp_path / "sft.parquet")["messages"][0]
    assert (asked["role"], answered["role"], answered["content"]) == ("user", "assistant", IMITATED)
    # Who imitates it is right by the reward of the same rows.
    assert compute_score("gsm", answered["content"], table["reward_model"][0]["ground_truth"])["score"] == 1.0

    prepare(monkeypatch, str(file), "--sft", "--as-it-is", "--output", str(tmp_path / "as_it_is.parquet"))
    assert pd.read_parquet(tmp_path / "as_it_is.parquet")["messages"][0][1]["content"] == GSM8K["answer"]


@pytest.mark.parametrize(
    ("response", "imitated"),
    [
        (r"Half: \boxed{\frac12}. <<1/2=0.5>>", r"Half: \boxed{\frac12}. <<1/2=0.5>>"),
        ("#### -3\n#### 4 ", "#### -3\nThe final answer is $\\boxed{4}$."),
    ],
)
def test_what_has_a_box_stays(response: str, imitated: str) -> None:
    assert prepare_math.boxed(response) == imitated


def test_answers_without_a_box_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, output = tmp_path / "rows.jsonl", tmp_path / "made" / "sft.parquet"
    file.write_text("".join(json.dumps(row) + "\n" for row in (GSM8K, GSM8K | {"answer": "It is 1002."})))
    with pytest.raises(ValueError) as raised:
        prepare(monkeypatch, str(file), "--sft", "--output", str(output))
    assert (
        "--response: expected a solution with its answer in \\boxed{} or after '####', got 'It is 1002.'. Fix:"
        in str(raised.value)
    )
    assert not output.parent.exists()


SUITE_ROWS: dict[str, tuple[dict, str, str]] = {
    "gsm8k": (GSM8K, "Two and 1,000?", "1002"),
    "math500": ({"problem": "Half?", "solution": r"\boxed{1}", "answer": r"\frac12", "level": 1}, "Half?", r"\frac12"),
    "aime24": ({"problem": "How many?", "solution": r"\boxed{033}"}, "How many?", "033"),
    "olympiadbench": (
        {"context": "Let $x>0$.", "question": "Solve.", "final_answer": ["$1$", "2"]},
        "Let $x>0$.\nSolve.",
        "1, 2",
    ),
    "arc_challenge": (
        {"question": "Which?", "choices": {"text": ["ice", "fire"], "label": ["1", "2"]}, "answerKey": "2"},
        "Which?\nA. ice\nB. fire\nAnswer with the letter of the right option.",
        "B",
    ),
    "mmlu_pro": (
        {"question": "Which?", "options": ["a", "b", "c"], "answer_index": 2},
        "Which?\nA. a\nB. b\nC. c\nAnswer with the letter of the right option.",
        "C",
    ),
}


@pytest.mark.parametrize("suite", SUITE_ROWS)
def test_suites(suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row, question, answer = SUITE_ROWS[suite]
    file, output = tmp_path / "rows.jsonl", tmp_path / "val.parquet"
    file.write_text(json.dumps(row))
    prepare(monkeypatch, str(file), "--suite", suite, "--output", str(output), "--instruction", "Go.")
    table = pd.read_parquet(output)
    assert table["data_source"][0] == suite
    assert table["prompt"][0][0]["content"] == f"{question}\nGo."
    assert table["reward_model"][0]["ground_truth"] == answer
    assert compute_score(suite, rf"So \boxed{{{answer}}}.", answer)["acc"] == 1.0
    assert compute_score(suite, r"So \boxed{A}.", answer)["acc"] == 0.0


def test_the_right_option_of_gpqa_is_at_any_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"Question": "Which?", "Correct Answer": "right", **{f"Incorrect Answer {n}": f"w{n}" for n in (1, 2, 3)}}
    file, output = tmp_path / "rows.jsonl", tmp_path / "val.parquet"
    file.write_text("".join(json.dumps(row) + "\n" for _ in range(32)))
    prepare(monkeypatch, str(file), "--suite", "gpqa_diamond", "--output", str(output))
    table = pd.read_parquet(output)
    letters = [truth["ground_truth"] for truth in table["reward_model"]]
    assert set(letters) == set("ABCD")
    for (message,), letter in zip(table["prompt"], letters, strict=True):
        assert f"\n{letter}. right\n" in message["content"]


def test_files_and_columns_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.txt").write_text("one")
    with pytest.raises(ValueError) as raised:
        prepare(monkeypatch, str(tmp_path / "rows.txt"), "--output", str(tmp_path / "o.parquet"))
    assert "rows.txt: expected one of .json, .jsonl, .parquet, .csv, got .txt. Fix:" in str(raised.value)
    (tmp_path / "rows.jsonl").write_text(json.dumps(GSM8K))
    with pytest.raises(ValueError) as raised:
        prepare(
            monkeypatch, str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "o.parquet"), "--answer", "solution"
        )
    assert str(raised.value) == "--answer: expected one of answer, question, got solution. Fix: --answer COLUMN."
    assert not (tmp_path / "o.parquet").exists()
