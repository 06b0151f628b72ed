# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Critical sharpness of the probe set's loss along the updates of a step, in an engine's own memory."""

import functools
from typing import Any

import torch
import torch.distributed as dist
from tensordict import TensorDict
from torch import Tensor

from ....monitors.monitor import Sums
from ....monitors.sharpness import DOUBLINGS, SharpnessMonitor
from ....ops.sharpness import CriticalStep, critical_step
from .guarded import Guard
from .line import Line, copies
from .probe_run import ProbeRun, of_responses
from .weight_shards import recover, renew


class OfEngine(SharpnessMonitor):
    """Keeps the weights before the first update of a step that will be looked at, then tries weights along the line
    from there to those after it; the very bits are put back, whatever fails. If they cannot be, the process ends:
    better than training on with others.

    Args:
        run: the probe set through the engine, whose ``optimizer_step`` is wrapped.
        every: steps between two looks.
    """

    def __init__(self, run: ProbeRun, every: int = 1) -> None:
        super().__init__(every)
        self._run, self._guard = run, Guard()
        self._before: list[Tensor] | None = None
        self._rate, self._torn = 0.0, False
        # The number of the first step of a run that is resumed is not known until it is done.
        self._wanted = True
        engine, step = run.engine, run.engine.optimizer_step

        @functools.wraps(step)
        def stepped(*args: Any, **kwargs: Any) -> Any:
            if self._wanted and not self._guard.error:
                with self._guard:
                    self._rate = max(group["lr"] for group in engine.optimizer.param_groups)
                    self._before = copies(engine)
            self._wanted = False
            return step(*args, **kwargs)

        engine.optimizer_step = stepped

    def due(self, step: int) -> bool:
        """The hub asks once a step, when its updates are done: so this knows what the next one will want."""
        due = super().due(step)
        self._wanted = super().due(step + 1)
        if not due:
            self._before = None
        return due

    def turn_off(self) -> None:
        self._wanted, self._before = False, None

    def sums(self) -> Sums:
        before, self._before = self._before, None
        line: Line | None = None
        with self._guard, torch.no_grad():
            if before is not None and not self._guard.error:
                with self._run.engine.eval_mode():
                    line = Line(self._run.engine, before)
        moved = line is not None and line.moved
        rate, failed, lost, moved = self._most(self._rate, self._guard.error is not None, line is None, moved)
        self._guard.check()
        self._wanted = self._wanted and not failed
        # Where no update was made, or it changed nothing, there is no line.
        if line is None or failed or lost or not moved or rate <= 0:
            return self.told(None, 0.0)
        found = self._search(line)
        self._guard.check()
        self._wanted = self._wanted and found is not None
        return self.told(found if dist.get_rank() == 0 else None, rate)

    def _most(self, *numbers: float) -> list[float]:
        """The largest on any rank, of each."""
        most = torch.tensor(numbers, dtype=torch.float64, device=self._run.device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return most.tolist()

    @torch.no_grad()
    def _search(self, line: Line) -> CriticalStep | None:
        """None if any rank failed."""
        try:
            return critical_step(functools.partial(self._loss, line), doublings=DOUBLINGS)
        except _FailedError:
            return None
        finally:
            try:
                with self._run.engine.eval_mode():
                    if self._torn:
                        recover(self._run.engine)
                    line.back()
                    renew(self._run.engine)
            except Exception as error:
                raise SystemExit(f"rejuvenation: monitor sharpness cannot put weights back: {error!r}") from error

    def _loss(self, line: Line, step: float) -> float:
        """Mean NLL of the probe set's response tokens at a point of the line, the same number on all ranks, so that all
        go on to the same point."""
        engine = self._run.engine
        seen = torch.zeros(3, dtype=torch.float64, device=self._run.device)

        def look(output: dict[str, Tensor], data: TensorDict) -> None:
            with self._guard:
                log_probs = of_responses(output["log_probs"], data).double()
                seen[:2] += torch.stack([-log_probs.sum(), log_probs.new_tensor(len(log_probs))])

        # What fails on this rank alone must not keep it from collectives that the others wait in.
        with self._guard, engine.eval_mode():
            with self._guard:
                line.go(step)
            renew(engine)
            self._torn = True
            self._run.run(look)
            self._torn = False
        seen[2] = float(self._guard.error is not None)
        dist.all_reduce(seen)
        nll, tokens, failed = seen.tolist()
        if failed:
            raise _FailedError
        return nll / tokens


class _FailedError(Exception):
    """On this rank or another."""
