# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The random numbers of a request: a function of its content, never of what the process did before."""

import hashlib
from collections import Counter

import numpy as np
import numpy.typing as npt

from .....ops.sampling import keyed_uniforms
from .sampling import SamplingParams


class RequestStreams:
    """Uniforms for each request, from a hash of what is asked.

    A stream is keyed by the seed, the replica, the weights' version, the prompt, the sampling parameters and ``k``, the
    number of times this same request was asked since the last weight update (a group of GRPO samples differs in ``k``
    alone). So a sample depends neither on the order of arrival, nor on the requests that share its batch, nor on
    earlier steps: a resumed job draws what the uninterrupted one drew. The replica is part of the key because verl
    spreads the samples of one prompt over replicas that count independently.

    Args:
        seed: ``rollout.seed``.
        replica_rank: rank of the replica that serves the requests.
    """

    def __init__(self, seed: int, replica_rank: int) -> None:
        self._seed = seed
        self._replica_rank = replica_rank
        self._asked: Counter[bytes] = Counter()
        self.version: int | None = None

    def set_version(self, version: int | None) -> None:
        """Start counting anew for other weights.

        Args:
            version: the trainer's ``global_steps`` of the weights, None if it gave none.
        """
        self.version = version
        self._asked.clear()

    def next_uniforms(self, prompt_ids: list[int], params: SamplingParams) -> npt.NDArray[np.float64]:
        """Uniforms of the next request with this content: float64 ``[max_tokens]`` in [0, 1)."""
        digest = hashlib.sha256()
        seed = self._seed if params.seed is None else params.seed
        # ``max_tokens`` is left out: a longer request begins with the same tokens as a shorter one.
        digest.update(repr((seed, self._replica_rank, self.version)).encode())
        digest.update(repr((params.temperature, params.top_p, params.top_k)).encode())
        digest.update(np.asarray(prompt_ids, dtype=np.int64).tobytes())
        content = digest.digest()
        k = self._asked[content]
        self._asked[content] += 1
        key = hashlib.sha256(content + k.to_bytes(8, "little")).digest()[:16]
        return keyed_uniforms(key, params.max_tokens)
