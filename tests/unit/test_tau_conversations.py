# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The tau2 recipe's conversations to learn from: gold replayed, filtered, read by verl's SFT data set and by ours."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tau2
import tiny

tau2.on_path()

import replay_gold  # noqa: E402
import transcripts_to_sft  # noqa: E402
from tau2_domain import STOP_WORDS, domain, system_prompt  # noqa: E402

# What Qwen's templates do with tools and with what they answer, and no more.
TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>system\\n' + messages[0]['content'] + '\\n\\n# Tools\\n' }}"
    "{% for tool in tools %}{{ tool | tojson }}{{ '\\n' }}{% endfor %}{{ '</tools><|im_end|>\\n' }}"
    "{% elif messages[0]['role'] == 'system' %}"
    "{{ '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}{% endif %}"
    "{% for m in messages if m['role'] != 'system' %}"
    "{{ '<|im_start|>' + ('user' if m['role'] == 'tool' else m['role']) + '\\n' }}"
    "{{ '<tool_response>\\n' + m['content'] + '\\n</tool_response>' if m['role'] == 'tool' else m['content'] }}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def run(script: Any, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
    script.main()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose chat template shows tools."""
    path = tiny.save_base(tmp_path_factory.mktemp("model"))
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    settings = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": 100_000}))
    return path


@pytest.fixture(scope="module")
def gold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The transcripts of every sixth training task: half a second each."""
    path = tmp_path_factory.mktemp("gold")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(domain().splits, "train", domain().splits["train"][::6])
        run(replay_gold, monkeypatch, "--out", path)
        yield path


def test_both_readers_learn_the_agents_words_alone(
    gold: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    from rejuv_plugin.checkpoint.layout import read_checkpoint
    from rejuv_plugin.probe.dialogue import read_examples

    out = tmp_path / "conversations.parquet"
    run(transcripts_to_sft, monkeypatch, gold, "--model", model, "--out", out)
    rows = pd.read_parquet(out)
    assert list(rows["task"]) == domain().splits["train"], "all gold is worth 1"

    tokenizer = AutoTokenizer.from_pretrained(model)
    ours = read_examples(read_checkpoint(str(model), "sft"), str(out), 100_000, "reset.calibration")
    theirs = MultiTurnSFTDataset([str(out)], tokenizer, {"pad_mode": "no_padding", "max_length": 100_000})
    assert len(ours) == len(theirs) == len(rows) == 13
    for number in range(13):
        messages = list(rows["messages"][number])
        roles = [message["role"] for message in messages]
        assert roles == ["system", "user", *["assistant", "tool"] * (len(messages) // 2 - 1), "assistant"]
        said = "".join(f"{m['content']}<|im_end|>" for m in messages if m["role"] == "assistant")
        example, row = ours[number], theirs[number]
        assert tokenizer.decode([example.ids[t] for t in example.targets]) == said
        assert list(example.ids) == row["input_ids"].tolist()
        # verl also trains on the line break after a turn.
        masked = tokenizer.decode(row["input_ids"][row["loss_mask"] == 1])
        assert masked.replace("<|im_end|>\n", "<|im_end|>") == said
        # The RL prompt, tools and all.
        start = [{"role": "system", "content": system_prompt()}, {"role": "user", "content": messages[1]["content"]}]
        prompt = tokenizer.apply_chat_template(
            start, tools=domain().schemas, add_generation_prompt=True, return_dict=False
        )
        assert list(example.ids[: len(prompt)]) == prompt
        assert example.targets[0] == len(prompt)


def test_what_is_kept(gold: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run's transcripts: worth a reward, of the split, once, in an order of their own."""
    train, test = (domain().splits[split][0] for split in ("train", "test"))
    first = json.loads((gold / f"gold_{train}.json").read_text())
    assert first["messages"][-1] == {"role": "user", "content": STOP_WORDS[0]}
    ours = tmp_path / "transcripts"
    ours.mkdir()
    kept = [(train, 1.0), (train, 1.0), (train, 0.0), (test, 1.0)]
    for number, (task, score) in enumerate(kept):
        one = first | {"task": task, "outcome": first["outcome"] | {"score": score}}
        (ours / f"{number}.json").write_text(json.dumps(one))
    run(transcripts_to_sft, monkeypatch, ours, "--model", model, "--out", tmp_path / "out" / "rows.jsonl")
    (row,) = map(json.loads, (tmp_path / "out" / "rows.jsonl").read_text().splitlines())
    assert (row["task"], row["messages"][1:]) == (train, first["messages"][1:-1])
    with pytest.raises(SystemExit):
        run(transcripts_to_sft, monkeypatch, ours, "--model", model, "--out", tmp_path / "r.jsonl", "--score", "2")
    with pytest.raises(SystemExit):
        run(transcripts_to_sft, monkeypatch, ours, "--model", model, "--out", tmp_path / "rows.csv")


def test_a_template_that_shows_tools_elsewhere_is_refused() -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE.replace("{% if add_generation", "{{ tools | tojson }}{% if add_generation")
    with pytest.raises(ValueError) as raised:
        transcripts_to_sft.with_tools("policy", tokenizer)
    assert "--model: expected a chat template that shows tools in the system message" in str(raised.value)
    # One that shows none changes nothing.
    assert transcripts_to_sft.with_tools("policy", tiny.tokenizer()) == "policy"
