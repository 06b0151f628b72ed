# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The Hydra group ``+laptop=default``: what a verl command needs to run on a CPU, and nothing about the training.

The same command without ``+laptop=default`` and ``VERL_PLATFORM=cpu`` runs on a cluster.
"""

from typing import Any

from .fork_server import py_executable

_FP32_ENGINE: dict[str, Any] = {
    # verl autocasts to bf16 by default; a CPU computes that three times slower than fp32.
    "model_dtype": "fp32",
    "dtype": "float32",
    "mixed_precision": {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
    # Compiling takes longer than a tiny model's whole run.
    "use_torch_compile": False,
}

_MODEL: dict[str, Any] = {
    # Both defaults need flash-attention, which has no CPU build.
    "use_remove_padding": False,
    "override_config": {"attn_implementation": "sdpa"},
    "enable_gradient_checkpointing": False,
}

OVERRIDES: dict[str, Any] = {
    "actor_rollout_ref": {
        "model": _MODEL,
        "actor": {"use_torch_compile": False, "fsdp_config": _FP32_ENGINE},
        "ref": {"use_torch_compile": False, "fsdp_config": _FP32_ENGINE},
        "rollout": {
            "name": "transformers_cpu",
            "dtype": "float32",
            "tensor_model_parallel_size": 1,
            "enforce_eager": True,
            # There is no device memory to hand back and forth between training and rollout.
            "free_cache_engine": False,
            "enable_sleep_mode": False,
            "max_num_seqs": 512,
            "agent": {"num_workers": 1},
            "checkpoint_engine": {
                "update_weights_bucket_megabytes": 64,
                # Adds the backend "gloo", for trainer_mode=separate_async; the default backend stays "naive".
                "custom_backend_module": f"{__package__}.rollout.gloo_checkpoint_engine",
            },
        },
    },
    "critic": {"model": _MODEL, "fsdp": _FP32_ENGINE},
    "data": {"dataloader_num_workers": 0},
    "reward": {"num_workers": 1},
    "trainer": {
        "device": "cpu",
        "n_gpus_per_node": 1,
        "nnodes": 1,
    },
    "transfer_queue": {"backend": {"SimpleStorage": {"num_data_storage_units": 1}}},
    "ray_kwargs": {
        "ray_init": {
            "address": "local",
            # Logical: Ray must find a slot for every process, and none of them computes all the time.
            "num_cpus": 16,
            "num_gpus": 8,
            "include_dashboard": False,
            "object_store_memory": 400_000_000,
            "runtime_env": {"py_executable": py_executable()},
            "_system_config": {
                # Workers without that runtime environment: the job has no use for them.
                "prestart_worker_first_driver": False,
                # On two busy cores imports can take longer than the minute that Ray gives a worker.
                "worker_register_timeout_seconds": 300,
            },
        }
    },
}
