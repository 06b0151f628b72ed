# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The rollout server: what verl's clients, replicas and weight updates call, over one decode engine.

``RolloutServer`` is a plain asyncio class; ``TransformersServer`` builds it from verl's configuration, and is what runs
as a Ray actor.
"""

import asyncio
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.tokenizer import normalize_token_ids
from verl.workers.config import HFModelConfig
from verl.workers.rollout.replica import TokenOutput

from rejuv_plugin.errors import InputError

from .decode import BatchDecoder, Request
from .engine import DecodeEngine
from .intake import build_request
from .settings import EngineSettings
from .streams import RequestStreams
from .weights import ModelWeights, build_model

THREADS_VARIABLE = "REJUV_ROLLOUT_THREADS"
"""Environment variable: torch threads of each rollout server, 1 unless set. Small models do not profit from more."""


class RolloutServer:
    """Generates for one replica.

    Weight updates wait for the running requests, which therefore keep one version of the weights from start to end; the
    trainers that do not want to wait abort first. Requests that arrive meanwhile start on the new weights.

    Args:
        settings: of this server.
        model: from ``build_model`` with ``settings.dtype`` and ``settings.checkpoint``.
        num_threads: torch threads of the decode thread.
    """

    def __init__(self, settings: EngineSettings, model: torch.nn.Module, num_threads: int = 1) -> None:
        self._settings = settings
        self._weights = ModelWeights(model, loaded=settings.checkpoint is not None)
        self._streams = RequestStreams(settings.seed, settings.replica_rank)
        self._decoder = BatchDecoder(model, settings.vocab_size, settings.logprobs_mode)
        self._engine = DecodeEngine(
            self._decoder,
            max_running=settings.max_num_seqs,
            max_prefill_tokens=settings.max_num_batched_tokens,
            on_start=self._on_start,
            num_threads=num_threads,
        )
        self._admitting = asyncio.Event()
        self._admitting.set()
        self._rejecting = False

    async def ready(self) -> None:
        """Return once the constructor has; verl waits for it."""

    async def generate(
        self,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        request_id: str,
        image_data: list[Any] | None = None,
        video_data: list[Any] | None = None,
        **kwargs: Any,
    ) -> TokenOutput:
        """Continue a prompt.

        While generation is aborted, requests wait for ``resume_generation``, or come back empty and aborted if
        ``reject_request`` was given; verl's asynchronous client sends what was aborted again.

        Returns:
            The new tokens with ``stop_reason`` "completed" or "aborted", and the weights' version as
            ``extra_fields["global_steps"]``.
        """
        if image_data or video_data or kwargs.get("audio_data"):
            raise InputError(
                "generate", "text (rollout.name=transformers_cpu)", "images, videos or audio", "use rollout.name=vllm"
            )
        request = build_request(normalize_token_ids(prompt_ids), sampling_params, self._settings)
        while not self._admitting.is_set():
            if self._rejecting:
                return TokenOutput(
                    token_ids=[], stop_reason="aborted", extra_fields={"global_steps": self.global_steps}
                )
            await self._admitting.wait()
        await asyncio.wrap_future(self._engine.submit(request))
        return TokenOutput(
            token_ids=request.token_ids,
            log_probs=request.log_probs if request.params.logprobs else None,
            stop_reason="aborted" if request.aborted else "completed",
            extra_fields={"global_steps": request.version if request.token_ids else self.global_steps},
        )

    @property
    def global_steps(self) -> int | None:
        """Version of the weights: the trainer's step."""
        return self._streams.version

    async def load_weights(
        self,
        tensors: Mapping[str, torch.Tensor],
        *,
        first: bool = True,
        last: bool = True,
        peft_config: Mapping[str, Any] | None = None,
        global_steps: int | None = None,
    ) -> None:
        """Take one part of a weight update. Nothing is generated between the first part and the end of the last.

        After an update that failed, requests fail too, until one succeeds.

        Args:
            tensors: full tensors by Hugging Face name (by PEFT's name for an adapter).
            first: the update begins with this part.
            last: the update ends with this part.
            peft_config: given with the first part if the update is of the adapter alone.
            global_steps: version of the new weights, given with the last part.
        """
        try:
            if first:
                await asyncio.wrap_future(self._engine.hold())
                await asyncio.wrap_future(self._engine.call(partial(self._weights.begin, peft_config)))
            await asyncio.wrap_future(self._engine.call(partial(self._weights.load, tensors)))
            if last:
                await asyncio.wrap_future(self._engine.call(partial(self._finish_update, global_steps)))
        except BaseException:
            self._engine.release()
            raise
        if last:
            self._engine.release()

    async def set_global_steps(self, global_steps: int | None) -> None:
        """Name the version of the current weights."""
        await asyncio.wrap_future(self._engine.call(partial(self._streams.set_version, global_steps)))

    async def abort_all_requests(self, reject_request: bool = False, **kwargs: Any) -> dict[str, int]:
        """Return every request as far as it got, and admit none until ``resume_generation``.

        Args:
            reject_request: turn later requests away instead of letting them wait.
        """
        self._admitting.clear()
        self._rejecting = reject_request
        return {"aborted_count": await asyncio.wrap_future(self._engine.abort_all())}

    async def resume_generation(self) -> None:
        """Admit requests again."""
        self._rejecting = False
        self._admitting.set()

    async def _nothing_to_do(self, *args: Any, **kwargs: Any) -> None:
        """Weights and caches are in ordinary memory, no cache outlives its requests, and there is no profiler."""

    wake_up = sleep = clear_kv_cache = release_kv_cache = resume_kv_cache = _nothing_to_do
    start_profile = stop_profile = _nothing_to_do

    def _on_start(self, request: Request) -> None:
        self._weights.require_ready()
        request.uniforms = self._streams.next_uniforms(request.prompt_ids, request.params)
        request.version = self._streams.version

    def _finish_update(self, global_steps: int | None) -> None:
        self._weights.finish()
        self._decoder.model = self._weights.model
        self._streams.set_version(global_steps)


class TransformersServer(RolloutServer):
    """``RolloutServer`` from verl's configuration.

    Args:
        config: rollout configuration, as verl passes it around (a dataclass or OmegaConf).
        model_config: model configuration, likewise.
        replica_rank: rank of the replica.
    """

    def __init__(self, config: Any, model_config: Any, replica_rank: int) -> None:
        config = omega_conf_to_dataclass(config)
        model_config = omega_conf_to_dataclass(model_config, dataclass_type=HFModelConfig)
        num_threads = int(os.environ.get(THREADS_VARIABLE, "1"))
        torch.set_num_threads(num_threads)
        settings = EngineSettings.from_verl(config, model_config, replica_rank)
        model = build_model(model_config.hf_config, settings.dtype, settings.checkpoint, model_config.trust_remote_code)
        super().__init__(settings, model, num_threads)
