# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""tau2's retail domain: a shop's database, the tools on it, customers' tasks, and what a conversation is worth.

Everything of tau2 is the `inspect-evals` package's: data, tools, policy, the hash of a database. Its own way in needs
inspect-ai and a hundred packages for a handful of names, which `_loaded` has stand-ins for; nothing else is replaced.
"""

import gzip
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError, validate_call
from transformers.utils import get_json_schema

# The shop that a tool call is about: tau2's tools ask for it by `store_as`.
_SHOP: ContextVar[Any] = ContextVar("shop")

# tau2's words for a user who has nothing more to say.
STOP_WORDS = ("###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###")

INSTRUCTIONS = """<instructions>
    You are a customer service agent that helps the user according to the <policy> provided below.
    In each turn you can either:
    - Send a message to the user.
    - Make a tool call.
    You cannot do both at the same time.

    Try to be helpful and always follow the policy. Always make sure you generate valid JSON only.
    </instructions>
    <policy>
{policy}
</policy>
    """


class ToolError(Exception):
    """A tool's refusal, which the agent is told: tau2's tools raise it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True)
class Domain:
    """What the package holds: ``tools`` by name, ``tasks`` and ``splits`` by id; ``open_shop`` makes a new database."""

    tools: dict[str, Any]
    schemas: list[dict[str, Any]]
    tasks: dict[str, Any]
    splits: dict[str, list[str]]
    policy: str
    guidelines: str
    greeting: str
    open_shop: Callable[[], Any]


def _stand_ins(root: Path) -> dict[str, ModuleType]:
    """Modules by name: inspect-ai's, with what tau2's retail files import, and packages without their own code."""

    class Message(BaseModel):
        content: str

    names: dict[str, dict[str, Any]] = {
        "inspect_ai": {},
        "inspect_ai.tool": {"ToolError": ToolError, "Tool": object, "tool": lambda function: function},
        "inspect_ai.util": {"StoreModel": BaseModel, "store_as": lambda kind, name: _SHOP.get()},
        "inspect_ai.model": {"Content": object, "ContentText": object, "ChatMessageUser": Message},
        "inspect_evals": {"__path__": [str(root)]},
        "inspect_evals.tau2": {"__path__": [str(root / "tau2")]},
    }
    modules = {name: ModuleType(name) for name in names}
    for name, values in names.items():
        vars(modules[name]).update(values)
    return modules


@cache
def domain() -> Domain:
    """The domain, read once in a process.

    Raises:
        ModuleNotFoundError: if inspect-evals is not installed, with the command that does.
    """
    spec = importlib.util.find_spec("inspect_evals")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "inspect_evals: expected inspect-evals 0.26.0, which holds tau2's retail domain, got none. "
            "Fix: pip install --no-deps -r recipes/tau_retail/requirements.txt."
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0].startswith("inspect_")}
    for name in before:
        del sys.modules[name]
    sys.modules.update(_stand_ins(root))
    try:
        tools = importlib.import_module("inspect_evals.tau2.retail.tools")
        data = importlib.import_module("inspect_evals.tau2.retail.data_model")
        kinds = importlib.import_module("inspect_evals.tau2.data_model.tasks")
        greeting = importlib.import_module("inspect_evals.tau2.common.dataset").USER_MESSAGE.content
    finally:
        # A process that has the real inspect-ai keeps it.
        for name in [name for name in sys.modules if name.split(".")[0] in ("inspect_ai", "inspect_evals")]:
            del sys.modules[name]
        sys.modules.update(before)
    files = root / "tau2" / "data" / "domains" / "retail"
    database = gzip.decompress((files / "db.json.gz").read_bytes())

    def open_shop() -> Any:
        # pydantic reads JSON five times as fast as copy.deepcopy copies: 40 ms an episode.
        return tools.RetailAgentTools(db=data.RetailDB.model_validate_json(database), initialized=True)

    calls, schemas = {}, []
    for make in tools.all_retail_tools:
        execute = make()
        schema = get_json_schema(execute)
        schema["function"]["name"] = make.__name__
        schema["function"].pop("return", None)
        schemas.append(schema)
        calls[make.__name__] = validate_call(execute)
    tasks = [kinds.Task.model_validate(task) for task in json.loads((files / "tasks.json").read_text("utf-8"))]
    return Domain(
        tools=calls,
        schemas=schemas,
        tasks={task.id: task for task in tasks},
        splits=json.loads((files / "split_tasks.json").read_text("utf-8")),
        policy=(files / "policy.txt").read_text("utf-8"),
        guidelines=(root / "tau2/data/user_simulator/simulation_guidelines.txt").read_text("utf-8"),
        greeting=greeting,
        open_shop=open_shop,
    )


def system_prompt() -> str:
    """What the agent is told before the conversation: how to behave, and the shop's policy."""
    return INSTRUCTIONS.format(policy=domain().policy)


def customer(task: str) -> list[dict[str, str]]:
    """What the simulator of the task's user is told before the conversation: guidelines, scenario, a nudge to begin."""
    retail = domain()
    scenario = retail.tasks[task].user_scenario
    system = f"{retail.guidelines}\n<scenario>\n{scenario}\n</scenario>\n"
    return [{"role": "system", "content": system}, {"role": "user", "content": retail.greeting}]


class Episode:
    """One conversation about one task, over a database of its own."""

    def __init__(self, task: str) -> None:
        self._task = domain().tasks[task]
        self._shop = domain().open_shop()
        self._said = ""
        self.tool_errors = 0
        self.finished = False

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Run a tool; its answer for the agent. Whatever a tool cannot do is an answer too, and counted."""
        tool = domain().tools.get(name)
        if tool is None:
            self.tool_errors += 1
            return f"Error: there is no tool {name!r}"
        token = _SHOP.set(self._shop)
        try:
            answer = await tool(**arguments)
        except ToolError as error:
            self.tool_errors += 1
            return f"Error: {error.message}"
        except ValidationError as error:
            self.tool_errors += 1
            return "Error: " + "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        except Exception as error:  # a policy's arguments may break a tool in any way; that must not end a run
            self.tool_errors += 1
            return f"Error: {type(error).__name__}: {error}"
        finally:
            _SHOP.reset(token)
        return answer if isinstance(answer, str) else json.dumps(answer)

    def tell_user(self, text: str) -> None:
        """Keep what the agent told the user."""
        self._said += text.lower().replace(",", "") + "\n"

    def hear_user(self, text: str) -> None:
        """The user's words: a stop word ends the conversation."""
        self.finished = self.finished or any(word in text for word in STOP_WORDS)

    async def outcome(self) -> dict[str, float]:
        """``score`` 1.0 if the user ended it, the database is as it should be, and all facts were told; and the parts.

        tau2-bench's own rule: a conversation that ran into a limit is worth 0.
        """
        facts = self._task.evaluation_criteria.communicate_info or []
        told = all(fact.lower() in self._said for fact in facts)
        right = self._shop.db.get_hash() == await expected_hash(self._task.id)
        return {
            "score": float(self.finished and right and told),
            "database": float(right),
            "communicated": float(told),
            "ended_by_user": float(self.finished),
            "tool_errors": float(self.tool_errors),
        }


_EXPECTED: dict[str, str] = {}


async def expected_hash(task: str) -> str:
    """Hash of the database after the task's gold actions; refused ones are part of the gold."""
    if task not in _EXPECTED:
        gold = Episode(task)
        for action in gold._task.evaluation_criteria.actions or []:
            await gold.call(action.name, action.arguments)
        _EXPECTED[task] = gold._shop.db.get_hash()
    return _EXPECTED[task]
