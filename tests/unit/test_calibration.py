# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration files, the chat template, and which tokens are the model's own."""

import json
from pathlib import Path

import pandas as pd
import pytest
import tiny

from rejuv_plugin.errors import InputError
from rejuv_plugin.probe.calibration import read_dialogues
from rejuv_plugin.probe.dialogue import tokenize

KEY = "--calibration"
USER, ANSWER = {"role": "user", "content": "2+2="}, {"role": "assistant", "content": "4"}


def written(path: Path, rows: list) -> str:
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "2+2=", "response": "4"},
        {"prompt": [USER], "response": "4"},
        {"messages": [USER, ANSWER]},
        {"messages": [USER, ANSWER], "extra": 1},
    ],
)
def test_three_ways_to_say_the_same(tmp_path: Path, suffix: str, row: dict) -> None:
    assert read_dialogues(written(tmp_path / f"data{suffix}", [row, row]), KEY) == [[USER, ANSWER]] * 2


def test_fields_that_parquet_adds_are_dropped(tmp_path: Path) -> None:
    called = {"role": "assistant", "content": "", "tool_calls": [{"name": "add"}]}
    path = written(tmp_path / "data.parquet", [{"messages": [USER, called, ANSWER]}])
    assert read_dialogues(path, KEY) == [[USER, called, ANSWER]]


def test_half_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "\\ud83d\\ude00", "response": "4"}\n')
    assert read_dialogues(str(path), KEY)[0][0]["content"] == "\U0001f600"
    path.write_text('{"prompt": "\\ud800", "response": "4"}\n')
    with pytest.raises(InputError, match=r"^--calibration: expected one JSON object a line.*surrogates not allowed"):
        read_dialogues(str(path), KEY)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "no rows"),
        ([{"prompt": "a"}], "prompt in row 0. Fix: if these are prompts alone, as RL has them, make answers to them"),
        ([{"question": "a", "answer": "b"}], "question, answer in row 0"),
        ([3], "int in row 0"),
        ([{"prompt": "a", "response": ""}], "none in row 0"),
        ([{"prompt": "a", "response": None}], "none in row 0"),
        ([{"prompt": 3, "response": "b"}], "something else in row 0"),
        ([{"messages": [USER]}], "none in row 0"),
        ([{"messages": []}], "none in row 0"),
        ([{"messages": "hello"}], "something else in row 0"),
        ([{"messages": ["hello"]}], "something else in row 0"),
        ([{"messages": [USER, ANSWER]}, {"messages": None}], "something else in row 1"),
    ],
)
def test_rows_that_are_no_dialogues(tmp_path: Path, rows: list, says: str) -> None:
    path = written(tmp_path / "data.jsonl", rows)
    with pytest.raises(InputError, match=r"^--calibration: ") as caught:
        read_dialogues(path, KEY)
    assert says in str(caught.value)


def test_files_that_are_not_what_they_seem(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text("{")
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    (tmp_path / "data.csv").write_text("prompt,response\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    for name in ("data.jsonl", "data.parquet", "data.csv", "latin.jsonl", "gone.jsonl", "."):
        with pytest.raises(InputError, match=r"^--calibration: .*Fix: "):
            read_dialogues(str(tmp_path / name), KEY)


def said(messages: list[dict], template: str | None = None) -> list[tuple[str, list[str]]]:
    """For each example its text, and the runs of tokens that count as the model's."""
    tokenizer = tiny.tokenizer()
    if template:
        tokenizer.chat_template = template
    found = []
    for example in tokenize([messages], tokenizer, 512, len(tokenizer), KEY, "--sft"):
        runs: list[list[int]] = []
        for t in example.targets:
            if runs and runs[-1][-1] == t - 1:
                runs[-1].append(t)
            else:
                runs.append([t])
        texts = [tokenizer.decode([example.ids[t] for t in run]) for run in runs]
        found.append((tokenizer.decode(example.ids), texts))
    return found


def test_the_answer_and_its_end_mark_are_the_models() -> None:
    ((text, runs),) = said([USER, ANSWER])
    assert text == "<|im_start|>user\n2+2=<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"
    assert runs == ["4<|im_end|>"]


def test_multi_turn_dialogues_count_every_answer_and_nothing_else() -> None:
    tool = {"role": "tool", "content": "4"}
    ((_, runs),) = said([{"role": "system", "content": "s"}, USER, ANSWER, tool, {**ANSWER, "content": "é 4!"}, USER])
    assert runs == ["4<|im_end|>", "é 4!<|im_end|>"]


def test_white_space_and_characters_of_several_tokens_inside_an_answer() -> None:
    ((_, runs),) = said([USER, {**ANSWER, "content": " a \n\n b é\n"}])
    assert runs == [" a \n\n b é\n<|im_end|>"]


def test_a_greeting_has_no_prompt() -> None:
    ((_, runs),) = said([{**ANSWER, "content": "hi"}, USER, ANSWER])
    assert runs == ["4<|im_end|>"]


# Qwen3: the thinking of earlier turns is dropped once there is a later user turn.
FORGETS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('</think>')[-1] }}"
    "{% else %}{{ m['content'] }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
THINKS = {"role": "assistant", "content": "<think>hm</think>4"}


def test_a_template_that_forgets_gives_each_turn_as_the_model_saw_it() -> None:
    found = said([USER, THINKS, USER, THINKS], FORGETS)
    assert [runs for _, runs in found] == [["<think>hm</think>4<|im_end|>"]] * 2
    assert found[1][0].count("<think>") == 1


def test_a_generation_prompt_that_the_finished_turn_does_not_keep() -> None:
    opens = tiny.CHAT_TEMPLATE.replace("assistant\\n' }}{% endif %}", "assistant\\n<think>' }}{% endif %}")
    assert said([USER, ANSWER], opens)[0][1] == ["4<|im_end|>"]
    assert said([USER, {**ANSWER, "content": "<think>4"}], opens)[0][1] == ["4<|im_end|>"]


def refused(messages: list[dict], says: str, key: str = KEY, context: int = 512, vocabulary: int = 512, **edit) -> None:
    tokenizer = tiny.tokenizer()
    for name, value in edit.items():
        setattr(tokenizer, name, value)
    with pytest.raises(InputError) as caught:
        tokenize([messages], tokenizer, context, vocabulary, key=KEY, sft_key="--sft")
    assert caught.value.key == key
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_template_cannot_do() -> None:
    refused([USER, ANSWER], "a chat template", "--sft", chat_template=None)
    refused([USER, ANSWER], "roles must", chat_template="{{ raise_exception('roles must\nalternate') }}")
    refused([USER, ANSWER], "TemplateSyntaxError", chat_template="{{")
    changes = "{{ messages | length }}" + tiny.CHAT_TEMPLATE
    refused([USER, ANSWER], "changes what came before (row 0, message 1)", chat_template=changes)


def test_what_the_model_cannot_take() -> None:
    refused([USER, ANSWER], "at most 10 tokens", context=10)
    refused([USER, ANSWER], "token ids below 9", "--sft", vocabulary=9)
    refused([ANSWER, USER], "no token of one in row 0")
    refused([USER, ANSWER], "no token of one", chat_template="{% if add_generation_prompt %}{% endif %}x")
