# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The thread that owns the decoder: it decodes, and runs everything else between two tokens."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import torch

from .decode import BatchDecoder, Request

T = TypeVar("T")


class DecodeEngine:
    """Serves requests in the order they were submitted, ``max_running`` at a time.

    All methods may be called from any thread. Nothing touches the model but this object's own thread, so whatever runs
    through ``call`` happens between two tokens, never during one.

    Args:
        decoder: used by this thread only from now on.
        max_running: most requests decoded together; 1 makes every forward pass independent of other requests.
        max_prefill_tokens: bound on the padded size of one prefill (a longer prompt is prefilled alone).
        on_start: called in this thread as a request leaves the queue; what it raises is that request's result.
        num_threads: torch threads of the forward pass.
    """

    def __init__(
        self,
        decoder: BatchDecoder,
        *,
        max_running: int,
        max_prefill_tokens: int,
        on_start: Callable[[Request], None],
        num_threads: int = 1,
    ) -> None:
        self._decoder = decoder
        self._max_running = max_running
        self._max_prefill_tokens = max_prefill_tokens
        self._on_start = on_start
        self._num_threads = num_threads
        self._wake = threading.Condition()
        self._waiting: deque[Request] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._holders: list[Future[None]] = []
        self._held = False
        self._closed = False
        self._futures: dict[Request, Future[Request]] = {}
        self._thread = threading.Thread(target=self._run, name="rollout-decode", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> Future[Request]:
        """Queue a request; the future gives it back complete, or aborted."""
        future: Future[Request] = Future()
        with self._wake:
            self._futures[request] = future
            self._waiting.append(request)
            self._wake.notify()
        return future

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run ``function`` in the decode thread, between two tokens."""
        future: Future[T] = Future()
        with self._wake:
            self._calls.append((function, future))
            self._wake.notify()
        return future

    def abort_all(self) -> Future[int]:
        """Give every request submitted so far back as it is, marked aborted; the future counts them."""
        return self.call(self._abort_all)

    def hold(self) -> Future[None]:
        """Let the running requests end and start no others until ``release``; the future says when none runs."""
        future: Future[None] = Future()
        with self._wake:
            self._held = True
            self._holders.append(future)
            self._wake.notify()
        return future

    def release(self) -> None:
        """Start waiting requests again."""
        with self._wake:
            self._held = False
            self._wake.notify()

    def close(self) -> None:
        """Stop the thread; requests that are not finished are aborted."""
        self.abort_all()
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        torch.set_num_threads(self._num_threads)
        while True:
            with self._wake:
                self._wake.wait_for(self._has_work)
                calls, self._calls = self._calls, deque()
            for function, future in calls:
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    future.set_result(function())
                except Exception as error:
                    future.set_exception(error)
            with self._wake:
                if self._closed and not self._calls:
                    return
                batch = [] if self._held else self._take_batch()
            self._decode(batch)
            if not self._decoder.running:
                self._tell_holders()

    def _has_work(self) -> bool:
        return bool(
            self._closed or self._calls or self._holders or self._decoder.running or (self._waiting and not self._held)
        )

    def _take_batch(self) -> list[Request]:
        """Take from the queue what may run now, in order, within the bound on one prefill."""
        batch: list[Request] = []
        longest = 0
        while self._waiting and len(self._decoder.running) + len(batch) < self._max_running:
            longest = max(longest, len(self._waiting[0].prompt_ids))
            if batch and longest * (len(batch) + 1) > self._max_prefill_tokens:
                break
            request = self._waiting.popleft()
            if self._futures[request].set_running_or_notify_cancel():
                batch.append(request)
            else:
                del self._futures[request]
        return batch

    def _decode(self, batch: list[Request]) -> None:
        """Advance the running requests by one token, then admit new ones; an error is the result of its requests."""
        try:
            self._resolve(self._decoder.step())
        except Exception as error:
            self._fail(self._decoder.clear(), error)
        started: list[Request] = []
        for request in batch:
            try:
                self._on_start(request)
            except Exception as error:
                self._fail([request], error)
            else:
                started.append(request)
        try:
            self._resolve(self._decoder.admit(started))
        except Exception as error:
            self._fail(started, error)

    def _abort_all(self) -> int:
        running = self._decoder.clear()
        with self._wake:
            waiting, self._waiting = list(self._waiting), deque()
        # A cancelled request has nobody left to tell.
        waiting = [request for request in waiting if self._futures[request].set_running_or_notify_cancel()]
        for request in running + waiting:
            request.aborted = True
        self._resolve(running + waiting)
        return len(running) + len(waiting)

    def _tell_holders(self) -> None:
        with self._wake:
            holders, self._holders = self._holders, []
        for holder in holders:
            if holder.set_running_or_notify_cancel():
                holder.set_result(None)

    def _resolve(self, requests: list[Request]) -> None:
        for request in requests:
            self._futures.pop(request).set_result(request)

    def _fail(self, requests: list[Request], error: Exception) -> None:
        for request in requests:
            self._futures.pop(request).set_exception(error)
