# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""tau2's gold actions, replayed in the shop, as transcripts: python replay_gold.py --out DIR [--split train]

A file for each task, as the loop keeps conversations (TRANSCRIPTS). What the agent does and the shop answers is
tau2's; the talk is not: the customer says the task's scenario in one message, the agent acts without a question, then
says "Done." and the facts it was asked for. Enough to calibrate on and to see a pipeline run; no teacher for an agent
that customers talk to.
"""

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

from tau2_domain import STOP_WORDS, Episode, domain, system_prompt


def _call(action: Any) -> str:
    """An action as the tool parser ``hermes`` reads it and Qwen's chat template writes it."""
    call = json.dumps({"name": action.name, "arguments": action.arguments}, ensure_ascii=False)
    return f"<tool_call>\n{call}\n</tool_call>"


async def replay(task: str) -> dict[str, Any]:
    """The transcript of one task: ``task``, ``messages`` of ``{role, content}``, ``outcome`` (``Episode.outcome``)."""
    episode, gold = Episode(task), domain().tasks[task]
    scenario, criteria = gold.user_scenario.instructions, gold.evaluation_criteria
    opening = "\n".join(filter(None, (scenario.reason_for_call, scenario.known_info)))
    messages = [{"role": "system", "content": system_prompt()}, {"role": "user", "content": opening}]
    for action in criteria.actions or []:
        messages.append({"role": "assistant", "content": _call(action)})
        messages.append({"role": "tool", "content": await episode.call(action.name, action.arguments)})
    told = " ".join(["Done.", *(f"{fact}." for fact in criteria.communicate_info or [])])
    messages.append({"role": "assistant", "content": told})
    episode.tell_user(told)
    messages.append({"role": "user", "content": STOP_WORDS[0]})
    episode.hear_user(STOP_WORDS[0])
    return {"task": task, "messages": messages, "outcome": await episode.outcome()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=sorted(domain().splits), default="train", help="base is all tasks")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    scores = []
    for task in domain().splits[arguments.split]:
        transcript = asyncio.run(replay(task))
        scores.append(transcript["outcome"]["score"])
        (arguments.out / f"gold_{task}.json").write_text(json.dumps(transcript, ensure_ascii=False), "utf-8")
    print(f"{arguments.out}: {len(scores)} conversations, {scores.count(1.0)} with score 1")


if __name__ == "__main__":
    main()
