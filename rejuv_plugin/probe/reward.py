# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A user's reward function, as verl calls it, on sampled answers."""

import asyncio
import hashlib
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, one_line
from .answers import Answers
from .tasks import Task

_ARGUMENTS = ("data_source", "solution_str", "ground_truth", "extra_info")

Reward = Callable[[Task, str], float]
"""The score of one answer to a task."""


def load_reward(spec: str, key: str, **arguments: Any) -> Reward:
    """A function of verl's form, ``compute_score(data_source, solution_str, ground_truth, extra_info)``.

    Args:
        spec: ``FILE.py:FUNCTION``. The file is run, as verl would run it. A coroutine function will do.
        key: how errors name it.
        arguments: more of the function's, as verl's ``reward_kwargs``.

    Returns:
        The function. It may return a number, a bool, or a mapping with the key ``score``.

    Raises:
        InputError: named ``key``; no such file or function, a file that cannot be run, another signature. The `Reward`
            raises it for a result that is no finite number; what the user's function raises passes through.
    """
    path, _, name = spec.rpartition(":")
    file = Path(path).expanduser()
    if not path.endswith(".py") or not name or not file.is_file():
        raise InputError(key, "FILE.py:FUNCTION, a file that is there", repr(spec), f"check {key}")
    function = getattr(_module(file.resolve(), key), name, None)
    if not callable(function):
        raise InputError(key, f"a function {name} in {file}", "none", "name the function after the colon")
    _check_signature(function, arguments, f"{name} in {file}", key)

    def reward(task: Task, text: str) -> float:
        said = function(
            data_source=task.data_source,
            solution_str=text,
            ground_truth=task.ground_truth,
            extra_info=dict(task.extra_info or {}),
            **arguments,
        )
        if inspect.iscoroutine(said):
            said = asyncio.run(said)
        return _number(said, key)

    return reward


def try_out(reward: Reward, task: Task, key: str) -> None:
    """Score one answer, the ground truth's own text, so that a function that cannot run does not cost hours of samples.

    Raises:
        InputError: named ``key``; the function raised, or its result is no finite number.
    """
    try:
        reward(task, str(task.ground_truth))
    except InputError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        got = f"{type(error).__name__}: {one_line(error)} (line {last.lineno} of {Path(last.filename).name})"
        raise InputError(
            key, "a function that scores an answer", got, "mend it, or what the prompts tell it"
        ) from error


def scores(
    answers: Answers,
    tasks: Sequence[Task],
    reward: Reward,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """The score of every answer: ``[P, g]`` float64.

    Args:
        answers: to P tasks, g to each.
        tasks: the P.
        reward: may take its time: it may run an answer's program, or ask a model.
        tick: called with the number of answers scored, from 0 on, and ``P * g``.
    """
    done, total = 0, sum(len(texts) for texts in answers.texts)
    tick(done, total)

    def scored(task: Task, text: str) -> float:
        nonlocal done
        score = reward(task, text)
        done += 1
        tick(done, total)
        return score

    rows = [[scored(task, text) for text in texts] for task, texts in zip(tasks, answers.texts, strict=True)]
    return torch.tensor(rows, dtype=torch.float64)


class _Traceless(SourceFileLoader):
    """Leaves no ``__pycache__`` beside the user's file."""

    def set_data(self, *_: Any, **__: Any) -> None:
        pass


def _module(file: Path, key: str) -> Any:
    # A name of its own, so that it hides no other module, and the same for the same file: what it defines is run once.
    name = f"rejuv_reward_{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, file, loader=_Traceless(name, str(file)))
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    # Dataclasses and pickle look their module up.
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        reason = one_line(f"{type(error).__name__}: {error}")
        raise InputError(key, "a file that Python can run", f"{file} ({reason})", "mend it") from error
    return module


def _check_signature(function: Any, arguments: Mapping[str, Any], name: str, key: str) -> None:
    """Before answers are sampled, which may take long."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # written in C
    try:
        signature.bind(**dict.fromkeys(_ARGUMENTS), **arguments)
    except TypeError as error:
        expected = f"a function of {', '.join((*_ARGUMENTS, *arguments))}"
        raise InputError(key, expected, f"{name}, {error}", "give it verl's signature") from None


def _number(said: Any, key: str) -> float:
    value: Any = said.get("score") if isinstance(said, Mapping) else said
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise InputError(key, "a finite number, or a mapping with one under score", repr(said)[:200], "return a number")
    return score
