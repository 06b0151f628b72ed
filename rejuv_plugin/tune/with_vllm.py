# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Answers through vLLM, where it is installed: for models and answers that take transformers too long."""

import gc
import hashlib
import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..checkpoint import Plan, apply
from ..probe.answers import Answers
from ..probe.tasks import Task


def installed() -> bool:
    """Whether vLLM can be imported; it is not."""
    return importlib.util.find_spec("vllm") is not None


def answers_of(
    plan: Plan, tasks: Sequence[Task], *, group: int, max_response: int, temperature: float, seed: int, first: int
) -> Answers:
    """As `probe.answers.sample_answers`, of the output of ``plan``, which is written to a temporary directory.

    Each request has a seed of its own, made of seed, prompt and answer. Unlike there, the random numbers are not common
    to all models: what vLLM makes of a seed depends on its kernels and on the vocabulary, and which numbers decide a
    token is not promised. Comparisons are still paired by prompt, with wider intervals. The model runs in the dtype of
    the checkpoint, and ``entropy`` and ``top1`` are NaN: vLLM gives no whole distribution.
    """
    from vllm import LLM, SamplingParams

    with tempfile.TemporaryDirectory(prefix="rejuv-tune-") as directory:
        target = Path(directory) / "candidate"
        apply(plan, target)
        # Nothing of the checkpoint's own generation config but the tokens that end an answer.
        llm: Any = LLM(model=str(target), trust_remote_code=False, seed=seed)
        ends = llm.get_default_sampling_params().stop_token_ids
        requests = [(task, _seed(seed, i, j)) for i, task in enumerate(tasks, first) for j in range(group)]
        outputs = llm.generate(
            [{"prompt_token_ids": task.ids} for task, _ in requests],
            [
                SamplingParams(
                    temperature=temperature,
                    top_p=1.0,
                    top_k=-1,
                    max_tokens=max_response,
                    seed=own,
                    stop_token_ids=ends,
                    skip_special_tokens=True,
                )
                for _, own in requests
            ],
            use_tqdm=False,
        )
        said = [output.outputs[0] for output in outputs]
        # Its workers hold the GPU's memory until nothing refers to them.
        del llm
        gc.collect()
    groups = [said[start : start + group] for start in range(0, len(said), group)]
    unknown = [[float("nan")] * group for _ in groups]
    return Answers(
        [[one.text for one in answers] for answers in groups],
        [[list(one.token_ids) for one in answers] for answers in groups],
        [[one.finish_reason == "stop" for one in answers] for answers in groups],
        unknown,
        unknown,
    )


def _seed(seed: int, prompt: int, answer: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {prompt} {answer}".encode()).digest()[:4], "big")
