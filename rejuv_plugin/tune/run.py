# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""From two checkpoints, prompts and a reward function to the alpha to start RL from."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..checkpoint import read_inputs
from ..checkpoint.locks import locked
from ..checkpoint.progress import Progress
from ..checkpoint.provenance import Inputs
from ..checkpoint.small_file import write_text
from ..config import TuningConfig
from ..config.tuning import HALF
from ..diagnose.made import made
from . import record
from .ask import Asker
from .earlier import RESULT, TRACE, keep
from .objective import objective
from .question import Question
from .search import Search, search
from .trace import Trace, address


def tune(
    question: Question,
    settings: TuningConfig,
    directory: Path,
    *,
    inputs: Inputs | None = None,
    fusion_alone: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Search for the best alpha, and rho if there are several. One process at a time in a directory: others wait.

    Args:
        question: from `question.question_of`; each rho in its ``resets`` is tried with every alpha.
        settings: of the search, as for the question.
        directory: there already; ``trace.jsonl`` in it is read and continued, ``tuning.json`` written; one that
            answers another question is kept, see `earlier.keep`.
        inputs: digests of the checkpoints' files, if they are known.
        fusion_alone: whether rho 0 is tried too.
        progress: called with ``("hash", ...)``, then with ``(candidate, answers done, answers in all)``, and
            ``("<candidate>: scores", ...)`` as they are scored.

    Returns:
        The content of tuning.json.

    Raises:
        InputError: a checkpoint, or what is made of it, that cannot be loaded, does not fit the device, or overflows; a
            reward that is no number.
    """
    # Another writer of the trace would take a line that is being written for what a killed run left.
    with locked(directory / ".trace.lock", str(directory), directory / RESULT, needed=False, leave=False):
        return _tuned(question, settings, directory, inputs, fusion_alone, progress)


def _tuned(
    question: Question,
    settings: TuningConfig,
    directory: Path,
    inputs: Inputs | None,
    fusion_alone: bool,
    progress: Progress | None,
) -> dict[str, Any]:
    began, goal = time.monotonic(), objective(settings.best_of)
    asked = address(question.content(inputs or read_inputs(question.plan, progress=progress)))
    rhos = (*([0.0] if fusion_alone else []), *sorted(question.resets))
    resolution = settings.resolution if settings.refines else None
    lanes = search(
        Search(settings.grid, rhos, resolution, len(question.tasks), settings.seed, (HALF,)),
        goal,
        Asker(question, Trace(directory / TRACE, asked), progress),
    )
    seconds = time.monotonic() - began
    found = _made(question, settings, rhos, seconds) | {
        "question": asked,
        "objective": goal.to_json(),
        "choice": record.choice(lanes, goal, settings.seed),
        "trace": record.trace(lanes, settings.pass_score, settings.seed),
    }
    keep(directory, asked)
    write_text(directory / RESULT, json.dumps(found, indent=1, allow_nan=False) + "\n")
    return found


def _made(question: Question, settings: TuningConfig, rhos: tuple[float, ...], seconds: float) -> dict[str, Any]:
    plan, data, device = question.plan, question.data, question.device
    return made("tuning", device, seconds) | {
        "settings": asdict(settings) | {"rho": list(rhos), "omega": question.omega},
        "base": {"name": plan.base.label, "path": str(plan.base.root)},
        "sft": {"name": plan.sft.label, "path": str(plan.sft.root)},
        "prompts": {
            "files": list(data.prompts.files),
            "count": len(question.tasks),
            "group": data.group,
            "temperature": data.temperature,
            "max_response": data.prompts.max_response,
            "reward": data.reward,
        },
    }
