# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Transcripts as rows of ``messages``, for verl's SFT trainer and ``rejuv``'s calibration data:

    python transcripts_to_sft.py TRANSCRIPTS --model SFT --out conversations.parquet

Kept are conversations about the split's tasks with at least ``--score``, each once, in the order of the tasks and of
their words, so that the same transcripts give the same file. In RL the chat template shows the agent its tools. Neither
reader of this file is told of them (and parquet would give every schema the parameters of all), so they are written
into the system message, in the template's own words: rendered, a row begins with the very text of the RL prompt.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from tau2_domain import domain


def with_tools(system: str, tokenizer: Any) -> str:
    """The system message that renders without tools as ``system`` does with the domain's.

    Raises:
        ValueError: for a template that shows tools elsewhere than in the system message.
    """

    def rendered(content: str, tools: Any = None) -> str:
        messages = [{"role": "system", "content": content}, {"role": "user", "content": "?"}]
        return tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)

    before, mark, after = rendered("\0").partition("\0")
    shown = rendered(system, domain().schemas)
    content = shown.removeprefix(before).removesuffix(after)
    if not mark or rendered(content) != shown:
        raise ValueError(
            "--model: expected a chat template that shows tools in the system message, got one that does not. "
            "Fix: transcripts of a model whose template does."
        )
    return content


def kept(transcripts: Iterable[dict[str, Any]], tasks: list[str], score: float) -> Iterator[dict[str, Any]]:
    """Transcripts to learn from, without what follows the agent's last word."""
    order = {task: number for number, task in enumerate(tasks)}
    chosen = {}
    for each in transcripts:
        messages = [{"role": m["role"], "content": m["content"]} for m in each["messages"]]
        while messages and messages[-1]["role"] != "assistant":
            messages.pop()
        if messages and each["task"] in order and each["outcome"]["score"] >= score:
            chosen[order[each["task"]], json.dumps(messages)] = {"task": each["task"], "messages": messages}
    return (chosen[key] for key in sorted(chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "transcripts", type=Path, help="directory of JSON files: replay_gold.py's, or a run's TRANSCRIPTS"
    )
    parser.add_argument("--model", required=True, help="checkpoint whose chat template the rows are for")
    parser.add_argument("--out", type=Path, required=True, help="a .parquet or .jsonl file")
    parser.add_argument("--split", choices=sorted(domain().splits), default="train", help="base is all tasks")
    parser.add_argument("--score", type=float, default=1.0, help="least score that is kept; default 1")
    parser.add_argument("--max-tokens", type=int, help="leave longer conversations out")
    arguments = parser.parse_args()
    if arguments.out.suffix not in (".parquet", ".jsonl"):
        parser.error(f"--out: expected a .parquet or .jsonl file, got {arguments.out}")

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    files = sorted(arguments.transcripts.glob("*.json"))
    read = [json.loads(file.read_text("utf-8")) for file in files]
    rows, lengths = [], []
    for row in kept(read, domain().splits[arguments.split], arguments.score):
        row["messages"][0]["content"] = with_tools(row["messages"][0]["content"], tokenizer)
        length = len(tokenizer.apply_chat_template(row["messages"], return_dict=False))
        if arguments.max_tokens is None or length <= arguments.max_tokens:
            rows.append(row)
            lengths.append(length)
    if not rows:
        parser.error(f"{arguments.transcripts}: expected conversations to keep, got none among {len(read)} files")
    table = pd.DataFrame(rows)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    if arguments.out.suffix == ".parquet":
        table.to_parquet(arguments.out)
    else:
        table.to_json(arguments.out, orient="records", lines=True, force_ascii=False)
    print(f"{arguments.out}: {len(rows)} of {len(read)} conversations, the longest of {max(lengths)} tokens")


if __name__ == "__main__":
    main()
