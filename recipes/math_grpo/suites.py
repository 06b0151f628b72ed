# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Where evaluation suites are on the hub, and which of their columns are the question and the answer.

Names, splits and columns are as public code loads them; nobody here has downloaded them: see the README.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

# A row's options and which of them is right.
Choices = Callable[[dict[str, Any], random.Random], tuple[list[str], int]]


@dataclass(frozen=True)
class Suite:
    """``choices`` makes a question with lettered options of a row, whose answer is a letter. ``context`` is a column
    that stands before the question where a row has it."""

    hub: str
    split: str = "test"
    config: str | None = None
    question: str = "question"
    answer: str = "answer"
    context: str = ""
    choices: Choices | None = None


def gpqa(row: dict[str, Any], order: random.Random) -> tuple[list[str], int]:
    """The right answer has a column of its own: shuffled, or it would always be A."""
    right = row["Correct Answer"].strip()
    options = [right, *(row[f"Incorrect Answer {n}"].strip() for n in (1, 2, 3))]
    order.shuffle(options)
    return options, options.index(right)


def arc(row: dict[str, Any], _: random.Random) -> tuple[list[str], int]:
    # Some rows number their options.
    return row["choices"]["text"], row["choices"]["label"].index(row["answerKey"])


def mmlu_pro(row: dict[str, Any], _: random.Random) -> tuple[list[str], int]:
    return row["options"], row["answer_index"]


SUITES = {
    "gsm8k": Suite("openai/gsm8k", config="main"),
    "math500": Suite("HuggingFaceH4/MATH-500", question="problem"),
    "aime24": Suite("math-ai/aime24", question="problem", answer="solution"),
    "aime25": Suite("math-ai/aime25", question="problem"),
    "amc23": Suite("math-ai/amc23"),
    "minerva": Suite("math-ai/minervamath"),
    "olympiadbench": Suite(
        "Hothan/OlympiadBench", "train", "OE_TO_maths_en_COMP", "question", "final_answer", "context"
    ),
    "gpqa_diamond": Suite("Idavidrein/gpqa", "train", "gpqa_diamond", question="Question", choices=gpqa),
    "arc_challenge": Suite("allenai/ai2_arc", config="ARC-Challenge", choices=arc),
    "mmlu_pro": Suite("TIGER-Lab/MMLU-Pro", choices=mmlu_pro),
}


def lettered(question: str, options: list[str], right: int) -> tuple[str, str]:
    """The question with its options, and the right one's letter, which alone counts: so it is asked for."""
    lines = (f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False))
    return "\n".join((question, *lines, "Answer with the letter of the right option.")), ascii_uppercase[right]
