# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Rollout engine ``transformers_cpu``: verl's asynchronous rollout servers on plain transformers, without a GPU.

Why not transformers' own continuous batching: on a CPU (torch 2.13, transformers 5.10, one thread) it runs, but a tiny
Qwen2 (hidden 96, 3 layers), 256 requests of 20 + 16 tokens, decoded at 1,860 tokens/s with a hand-sized page pool and
at 235 with the default one (13 s of warm-up), against 9,000 to 16,000 for a plain left-padded batch and 14,000 to
16,000 for this engine. It also draws all samples from one global generator, so a sample depends on which requests
shared its batch; it fixes greedy or sampled for the whole server, where verl mixes both; and it cannot switch top-k off
for one request. Hence the small decoder here.

Samples are a function of what is asked (see ``streams``), and equal in every run up to rounding: the last bits of a
logit depend on the shape of the batch. ``rollout.full_determinism=True`` decodes one request at a time (1,250 tokens/s
in the case above), which makes tokens and log-probabilities the same to the last bit whatever the timing.

Layers, each importing only those above it:

* ``sampling``: one request's sampling parameters, and one sampling step for a batch;
* ``streams``: the random numbers of a request, a function of its content alone;
* ``kv_cache``, ``decode``: a batched decoder that requests join and leave between two tokens;
* ``engine``: the thread that owns the decoder and serialises decoding, aborts and weight updates;
* ``weights``, ``settings``, ``intake``: the model and its updates; verl's configuration and requests, checked;
* ``server``, ``replica``, ``adapter``: verl's three rollout roles (``buckets``: weights in parts);
* ``gloo_checkpoint_engine``: weights for standalone rollouts, which verl otherwise sends between GPUs only.
"""

from types import ModuleType

ROLLOUT_NAME = "transformers_cpu"
"""Value of ``actor_rollout_ref.rollout.name`` that selects this engine."""


def register_adapter(base_module: ModuleType) -> None:
    """Add the worker side to verl's rollout registry.

    Args:
        base_module: the imported ``verl.workers.rollout.base``.
    """
    base_module._ROLLOUT_REGISTRY[(ROLLOUT_NAME, "async")] = f"{__name__}.adapter.TransformersServerAdapter"


def register_replica(replica_module: ModuleType) -> None:
    """Add the server side to verl's replica registry; the class itself is imported on first use.

    Args:
        replica_module: the imported ``verl.workers.rollout.replica``.
    """

    def load_replica() -> type:
        from .replica import TransformersReplica

        return TransformersReplica

    replica_module.RolloutReplicaRegistry.register(ROLLOUT_NAME, load_replica)
