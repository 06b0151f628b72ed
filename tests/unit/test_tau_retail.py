# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The tau2 recipe: all gold conversations through its loop, tools and reward; what must not be rewarded; settings."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tau2
import tiny
from omegaconf import OmegaConf

tau2.on_path()

import make_tau2  # noqa: E402
import tau2_domain  # noqa: E402
import tau2_simulator  # noqa: E402
from tau2_domain import Episode, domain, expected_hash  # noqa: E402
from tau2_simulator import Simulator  # noqa: E402

GREETING = "Hello, how can I help?"
TOKENIZER = tiny.tokenizer()


def gold(task: str) -> list[str]:
    """What a perfect agent says: a greeting, the gold actions in Qwen's format, the facts."""
    criteria = domain().tasks[task].evaluation_criteria
    calls = [{"name": action.name, "arguments": action.arguments} for action in criteria.actions or []]
    facts = f"Done. {' and '.join(criteria.communicate_info or [])}."
    return [GREETING, *(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls), facts]


def patient(body: dict[str, Any]) -> str:
    """A customer that waits for the second message."""
    heard = sum(message["role"] == "user" for message in body["messages"])
    return {1: "Hi!", 2: "Go on, please."}.get(heard, "Thank you. ###STOP###")


@pytest.fixture(scope="module")
def customer() -> Iterator[str]:
    with tau2.endpoint(patient) as url:
        yield url


class Speaker:
    """In the place of verl's rollout: says its lines, one a turn."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = list(lines)

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
        from verl.workers.rollout.replica import TokenOutput

        ids = TOKENIZER.encode(self.lines.pop(0) + "<|im_end|>")[: sampling_params["max_tokens"]]
        return TokenOutput(token_ids=ids, log_probs=[-0.5] * len(ids), extra_fields={"max_global_steps": 7})


async def converse(task: str, lines: list[str], url: str, turns: int = 60, room: int = 60_000, **more: Any) -> Any:
    """The recipe's loop over one task, with an agent that says ``lines``."""
    from tau2_loop import RetailLoop
    from verl.experimental.agent_loop.agent_loop import DictConfigWrap

    rollout = {"response_length": room, "prompt_length": 12_000, "multi_turn": {"format": "hermes"}}
    loop = RetailLoop(
        DictConfigWrap(OmegaConf.create({"actor_rollout_ref": {"rollout": rollout}})),
        Speaker(lines), TOKENIZER, None, None, DictConfigWrap(OmegaConf.create({})), "qwen2",
        turns=turns, simulator={"url": url, "model": "customer"}, **more,
    )  # fmt: skip
    (row,) = [row for row in make_tau2.rows("base") if row["reward_model"]["ground_truth"] == task]
    return await loop.run({"temperature": 1.0}, **row | {"raw_prompt": row["prompt"]})


def hash_by_tau2(task: str) -> str:
    """The database after the gold actions, as inspect-evals' scorer gets it: methods of the shop, called directly."""
    shop = domain().open_shop()
    for action in domain().tasks[task].evaluation_criteria.actions or []:
        if action.name not in ("calculate", "transfer_to_human_agents"):
            with suppress(tau2_domain.ToolError):
                getattr(shop, action.name)(**action.arguments)
    return shop.db.get_hash()


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.recipe_scripts)])
def test_gold_conversations_twice(customer: str, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    tasks = list(domain().tasks)[::every]
    # The reward's other side not by our own calls.
    monkeypatch.setattr(tau2_domain, "_EXPECTED", {task: hash_by_tau2(task) for task in tasks})

    async def all_of_them() -> list[Any]:
        return [await converse(task, gold(task), customer) for task in tasks]

    first, second = asyncio.run(all_of_them()), asyncio.run(all_of_them())
    assert [task for task, output in zip(tasks, first, strict=True) if output.reward_score != 1.0] == []
    for one, other in zip(first, second, strict=True):
        assert one.model_dump(exclude={"metrics"}) == other.model_dump(exclude={"metrics"})
    if every == 1:
        assert len(tasks) == 114
        errors = sum(output.extra_fields["reward_extra_info"]["tool_errors"] for output in first)
        assert errors == 23, "the gold actions that tau2 itself refuses"
        untouched = domain().open_shop().db.get_hash()
        assert sum(expected != untouched for expected in tau2_domain._EXPECTED.values()) == 103
    for task, output in zip(tasks, first, strict=True):
        own = [i for i, own in zip(output.response_ids, output.response_mask, strict=True) if own]
        assert TOKENIZER.decode(own) == "".join(f"{line}<|im_end|>" for line in gold(task)), "the agent's words alone"
        assert [-0.5 * own for own in output.response_mask] == output.response_logprobs


def test_our_calls_end_where_tau2s_do() -> None:
    for task in list(domain().tasks)[::20]:
        assert asyncio.run(expected_hash(task)) == hash_by_tau2(task)


def outcome(task: str, lines: list[str], url: str, **more: Any) -> dict[str, float]:
    output = asyncio.run(converse(task, lines, url, **more))
    return output.extra_fields["reward_extra_info"] | {"score": output.reward_score}


def test_what_is_worth_nothing(customer: str) -> None:
    writing, telling = "0", next(t for t, task in domain().tasks.items() if task.evaluation_criteria.communicate_info)
    lines = gold(writing)
    missing = outcome(writing, [*lines[:-2], lines[-1]], customer)
    assert (missing["score"], missing["database"], missing["communicated"]) == (0.0, 0.0, 1.0)
    silent = outcome(telling, [*gold(telling)[:-1], "Done."], customer)
    assert (silent["score"], silent["communicated"]) == (0.0, 0.0)
    cut = outcome(writing, lines, customer, turns=len(lines) - 1)
    assert (cut["score"], cut["database"], cut["ended_by_user"]) == (0.0, 1.0, 0.0)
    full = outcome(writing, lines, customer, room=200)
    assert (full["score"], full["ended_by_user"]) == (0.0, 0.0)
    # Facts in a tool call, or in thoughts, are not told to anybody.
    fact = domain().tasks[telling].evaluation_criteria.communicate_info[0]
    thought = outcome(telling, [*gold(telling)[:-1], f"<think>{fact}</think>Done."], customer)
    assert thought["communicated"] == 0.0


def test_one_conversation_as_it_was(customer: str, tmp_path: Path) -> None:
    output = asyncio.run(converse("0", gold("0"), customer, transcripts=str(tmp_path)))
    (kept,) = [json.loads(file.read_text()) for file in tmp_path.iterdir()]
    assert kept["outcome"]["score"] == output.reward_score == 1.0
    roles = [message["role"] for message in kept["messages"]]
    assert roles == ["system", "user", "assistant", "user", *["assistant", "tool"] * 5, "assistant", "user"]
    others = [i for i, own in zip(output.response_ids, output.response_mask, strict=True) if not own]
    text = TOKENIZER.decode(others)
    assert text.startswith("\n<|im_start|>user\nGo on, please.<|im_end|>\n<|im_start|>assistant\n")
    assert text.count("<|im_start|>tool\n") == 5
    assert "yusuf_rossi_9620" in text
    assert TOKENIZER.decode(output.prompt_ids).endswith("user\nHi!<|im_end|>\n<|im_start|>assistant\n")


def test_whatever_a_tool_cannot_do_is_an_answer() -> None:
    episode = Episode("0")

    def answer(name: str, **arguments: Any) -> str:
        return asyncio.run(episode.call(name, arguments))

    assert answer("drop_table") == "Error: there is no tool 'drop_table'"
    assert answer("_get_order", order_id="#W2378156") == "Error: there is no tool '_get_order'"
    assert answer("get_order_details", order_id="#W0") == "Error: Order not found"
    assert answer("get_order_details") == "Error: order_id: Missing required argument"
    assert answer("get_order_details", order_id=1).startswith("Error: order_id: Input should be a valid string")
    assert answer("get_order_details", order_id="#W2378156", more=1).startswith("Error: more: Unexpected")
    assert episode.tool_errors == 6
    assert json.loads(answer("get_order_details", order_id="#W2378156"))["user_id"] == "yusuf_rossi_9620"
    assert json.loads(answer("list_all_product_types"))["T-Shirt"]
    assert answer("calculate", expression="2 * 3.5") == "7.0"
    assert episode.tool_errors == 6


def test_schemas_are_what_models_are_told() -> None:
    schemas = {schema["function"]["name"]: schema["function"] for schema in domain().schemas}
    assert schemas.keys() == domain().tools.keys()
    assert len(schemas) == 15
    parameters = schemas["return_delivered_order_items"]["parameters"]
    assert parameters["required"] == ["order_id", "item_ids", "payment_method_id"]
    assert parameters["properties"]["item_ids"]["type"] == "array"
    assert not {name for name in sys.modules if name.startswith("inspect_")}, "stand-ins are gone"


def test_the_simulator_is_asked_as_set() -> None:
    bodies: list[dict[str, Any]] = []

    def busy_once(body: dict[str, Any]) -> str | int:
        bodies.append(body)
        return 503 if len(bodies) == 1 else "<think>who am I</think> Hello"

    with tau2.endpoint(busy_once) as url:
        user = Simulator(url, "Qwen3-4B", seed=5, temperature=0.7)
        assert asyncio.run(user.answer(tau2_domain.customer("0"), waits=(0,))) == "Hello"
    assert bodies[0] == bodies[1]
    assert {key: bodies[0][key] for key in ("model", "seed", "temperature")} == {
        "model": "Qwen3-4B",
        "seed": 5,
        "temperature": 0.7,
    }
    system, nudge = bodies[0]["messages"]
    assert "You are Yusuf Rossi in zip code 19122." in system["content"]
    assert nudge["content"].startswith("Begin the interaction.")
    with tau2.endpoint(lambda body: 404) as url, pytest.raises(RuntimeError) as raised:
        asyncio.run(Simulator(url, "none").answer([]))
    assert f"SIMULATOR_URL: expected an answer of none at {url}, got status 404" in str(raised.value)
    assert tau2_simulator.without_thoughts("<think>a</think>b<think>c") == "b"


def test_a_customer_who_is_not_there_is_noticed_by_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: list[dict[str, Any]] = []

    def there(body: dict[str, Any]) -> str:
        bodies.append(body)
        return "Hello"

    settings = {"MODEL": "Qwen3-4B", "SEED": "5", "TEMPERATURE": "0.7"}
    for name, value in settings.items():
        monkeypatch.setenv(f"SIMULATOR_{name}", value)
    with tau2.endpoint(there) as url:
        monkeypatch.setenv("SIMULATOR_URL", url)
        tau2_simulator.main()
    (body,) = bodies
    assert (body["model"], body["seed"], body["temperature"]) == ("Qwen3-4B", 5, 0.7)
    with pytest.raises(SystemExit) as raised:
        tau2_simulator.main()
    said = str(raised.value)
    assert said.startswith(f"SIMULATOR_URL: expected an answer of Qwen3-4B at {url}, got ClientConnectorError: ")
    assert "Fix: " in said
    assert sum(tau2_simulator.WAITS) == 240


def test_rows_and_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["make_tau2.py", "--out", str(tmp_path)])
    make_tau2.main()
    train, test = (pd.read_parquet(tmp_path / f"{split}.parquet") for split in ("train", "test"))
    assert (len(train), len(test)) == (74, 40)
    ids = [{row["ground_truth"] for row in table["reward_model"]} for table in (train, test)]
    assert ids[0] | ids[1] == domain().tasks.keys()
    assert not ids[0] & ids[1]
    assert set(train["agent_name"]) == {"tau2_retail"}
    (message,) = train["prompt"][0]
    assert message["role"] == "system"
    assert "# Retail agent policy" in message["content"]
