# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Problems from the hub or from files as verl's parquet.

RL:  python prepare_math.py openai/gsm8k --config main --split train --output train.parquet
     python prepare_math.py my.jsonl --question problem --answer solution --output val.parquet --name my_suite
SFT: python prepare_math.py my.jsonl --sft --response solution --output sft.parquet
     The reward counts boxed answers alone, so responses must have a box; GSM8K's last line ("#### 72") becomes one.
A suite of suites.py:
     python prepare_math.py --suite math500 --output val.parquet

Columns of other names: --question and --answer. What counts as the answer, in this order: the last \\boxed{}, what
follows GSM8K's "####", the whole text; of a list, all, with commas between.
"""

import argparse
import random
import re
from pathlib import Path
from typing import Any

import datasets
from suites import SUITES, Suite, lettered
from verl.utils.reward_score.math_reward import last_boxed_only_string, remove_boxed

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."


def final_answer(text: str) -> str:
    """The answer alone, out of a solution or an answer as data sets write it."""
    box = last_boxed_only_string(text)
    if box is not None:
        return remove_boxed(box).strip()
    if "####" in text:
        return text.rpartition("####")[2].strip().replace(",", "")
    return re.sub(r"(?<!\\)\$", "", text).strip()


def boxed(response: str) -> str:
    """A response whose answer is in a box: as it is if it has one, else with GSM8K's last line made one.

    Without the calculator's notes of GSM8K, such as "<<48+24=72>>", which nobody shall learn to write.

    Raises:
        ValueError: if there is neither.
    """
    if last_boxed_only_string(response) is not None:
        return response
    if "####" not in response:
        raise ValueError(
            f"--response: expected a solution with its answer in \\boxed{{}} or after '####', got {response[-60:]!r}. "
            "Fix: box the answers, which the reward looks for; or --as-it-is."
        )
    steps, _, answer = response.rpartition("####")
    steps = re.sub(r"<<.*?>>", "", steps).rstrip()
    return f"{steps}\nThe final answer is $\\boxed{{{answer.strip().replace(',', '')}}}$."


def load(source: str, config: str | None, split: str) -> datasets.Dataset:
    """Rows of a hub data set's split, or of one local .json, .jsonl, .parquet or .csv file.

    Raises:
        ValueError: if a file has another ending.
    """
    path = Path(source)
    if not path.is_file():
        return datasets.load_dataset(source, config, split=split)
    kinds = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}
    if path.suffix not in kinds:
        raise ValueError(
            f"{source}: expected one of {', '.join(kinds)}, got {path.suffix or 'no ending'}. Fix: convert it."
        )
    return datasets.load_dataset(kinds[path.suffix], data_files=str(path), split="train")


def column(row: dict[str, Any], name: str, option: str) -> str:
    if row.get(name) is None:
        raise ValueError(f"--{option}: expected one of {', '.join(sorted(row))}, got {name}. Fix: --{option} COLUMN.")
    value = row[name]
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def asked_and_answered(row: dict[str, Any], suite: Suite, order: random.Random) -> tuple[str, str]:
    """The question and the answer alone; with lettered options where the suite has some."""
    question = "\n".join(filter(None, (row.get(suite.context), column(row, suite.question, "question"))))
    if suite.choices:
        return lettered(question, *suite.choices(row, order))
    return question, final_answer(column(row, suite.answer, "answer"))


def rl_row(question: str, answer: str, name: str, index: int, split: str) -> dict[str, Any]:
    """verl's row for RL and validation; ``name`` is the suite's in verl's metrics (val-core/<name>/acc/...)."""
    return {
        "data_source": name,
        "prompt": [{"role": "user", "content": question}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {"index": index, "split": split},
    }


def sft_row(question: str, response: str) -> dict[str, Any]:
    """A row for verl's SFT trainer."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": response}]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", help="a data set's name on the hub, or a file (default: the suite's)")
    parser.add_argument("--suite", choices=SUITES, help="split, columns and form of a known suite")
    parser.add_argument("--config", help="the hub data set's configuration")
    parser.add_argument("--split", help="the hub data set's split (default: the suite's, or train)")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--question", default="question", help="column")
    parser.add_argument("--answer", default="answer", help="column with the answer or a solution that ends in it")
    parser.add_argument("--response", default="answer", help="column to imitate, with --sft")
    parser.add_argument("--name", help="the suite's name in metrics (default: the source's)")
    parser.add_argument("--limit", type=int, help="the first so many rows")
    parser.add_argument("--instruction", default=INSTRUCTION, help="what every prompt ends with")
    parser.add_argument("--sft", action="store_true", help="rows to imitate instead of prompts")
    parser.add_argument("--as-it-is", action="store_true", help="with --sft: responses need no box, and get none")
    options = parser.parse_args()
    if (options.source or options.suite) is None:
        parser.error("source or --suite: expected one of them, got none. Fix: --suite gsm8k.")
    plain = Suite(options.source, "train", options.config, options.question, options.answer)
    suite = SUITES.get(options.suite, plain)
    split = options.split or suite.split
    source = options.source or suite.hub
    name = options.name or options.suite or Path(source).stem
    rows, order = [], random.Random(0)
    for index, row in enumerate(load(source, suite.config, split)):
        if options.limit is not None and index >= options.limit:
            break
        if options.sft:
            question, response = column(row, suite.question, "question"), column(row, options.response, "response")
            response = response if options.as_it_is else boxed(response)
            rows.append(sft_row(f"{question}\n{options.instruction}".rstrip(), response))
        else:
            question, answer = asked_and_answered(row, suite, order)
            rows.append(rl_row(f"{question}\n{options.instruction}".rstrip(), answer, name, index, split))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows).to_parquet(str(options.output))
    print(f"{options.output}: {len(rows)} rows")


if __name__ == "__main__":
    main()
