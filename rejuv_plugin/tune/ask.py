# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A candidate, fused in memory, answers prompts; its answers are scored."""

import time
from collections.abc import Callable
from typing import Any

import torch

from ..checkpoint import Plan, at_alpha, plan_reset, workers
from ..checkpoint.progress import Progress
from ..loading import Values, needed, serving
from ..probe.answers import Answers, no_answers, sample_answers
from ..probe.load import fitting, load_model
from ..probe.reward import scores
from ..probe.tasks import Task
from ..probe.usage import free
from .question import Question
from .scored import Candidate, Scored
from .trace import Trace


def plan_for(question: Question, candidate: Candidate) -> Plan:
    """The plan whose output is the candidate: `checkpoint.apply` of it writes the very weights that are asked."""
    plan = at_alpha(question.plan, candidate.alpha)
    if not candidate.rho:
        return plan
    return plan_reset(plan, question.resets[candidate.rho], question.omega, f"{question.key}rho")


def fused_model(plan: Plan, device: torch.device) -> Any:
    """The output of ``plan`` as a transformers model, without writing it: the bits that `checkpoint.apply` writes, then
    in float32, as by `load_model`.

    Raises:
        InputError: as `loading.Values.tensor` and `load_model`.
        RuntimeError: transformers read weights in a way that `loading.serving` does not see.
    """
    with Values(plan, workers()) as values:
        try:
            with serving(values, plan.sft.root):
                model = load_model(plan.sft, device)
        finally:
            # Loaders tell of it in words of their own.
            if values.failed:
                raise values.failed
        head = not getattr(model.config, "tie_word_embeddings", False)
        unread = [name for name in values.fused.keys() - values.drift.keys() if needed(plan, name, head=head)]
    if unread:
        raise RuntimeError(
            f"{min(unread)}: expected to be read through safetensors.safe_open, got a loader that reads another way, "
            "which gives the SFT checkpoint. Fix: rejuv apply, and measure its output"
        )
    return model


class Asker:
    """Asks candidates, each prompt once: what the trace knows is not asked again."""

    def __init__(self, question: Question, trace: Trace, progress: Progress | None = None) -> None:
        self._question, self._trace, self._progress = question, trace, progress

    def __call__(self, candidate: Candidate, count: int) -> Scored:
        """What the candidate's answers to the first ``count`` prompts earned.

        Raises:
            InputError: the candidate does not fit the device, or overflows.
        """
        known = self._trace.known(candidate)
        if len(known) < count:
            self._trace.add(candidate, self._found(candidate, len(known), count))
            known = self._trace.known(candidate)
        return known.first(count)

    def _found(self, candidate: Candidate, first: int, end: int) -> Scored:
        began, question = time.monotonic(), self._question
        tasks = question.tasks[first:end]
        with fitting(question.device, f"{question.key}device"):
            answers = self._answers(candidate, tasks, first)
        free(question.device)
        return Scored(
            scores(answers, tasks, question.reward, self._tick(f"{candidate}: scores", first)).tolist(),
            [[len(ids) for ids in group] for group in answers.ids],
            answers.finished,
            answers.entropy,
            answers.top1,
            time.monotonic() - began,
        )

    def _answers(self, candidate: Candidate, tasks: tuple[Task, ...], first: int) -> Answers:
        question, plan = self._question, plan_for(self._question, candidate)
        sampling = {
            "group": question.data.group,
            "max_response": question.data.prompts.max_response,
            "temperature": question.data.temperature,
            "seed": question.seed,
            "first": first,
        }
        if question.sampler == "vllm":
            from .with_vllm import answers_of

            return answers_of(plan, tasks, **sampling)

        tick = self._tick(str(candidate), first)
        try:
            model = fused_model(plan, question.device)
            return sample_answers(model, question.tokenizer, tasks, **sampling, progress=lambda _, *count: tick(*count))
        except FloatingPointError as error:
            raise no_answers(str(candidate), error, "check both checkpoints, or leave that alpha out") from None

    def _tick(self, phase: str, first: int) -> Callable[[int, int], None]:
        """Counts on from the prompts before the first one, which are known."""
        before = first * self._question.data.group

        def tick(done: int, total: int) -> None:
            if self._progress:
                self._progress(phase, before + done, before + total)

        return tick
