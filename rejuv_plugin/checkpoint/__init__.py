# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face checkpoints in, one rejuvenated checkpoint out: plan from headers alone, then stream.

    plan = plan_fusion("base", "sft", FusionConfig(alpha=0.5))     # bad inputs end here
    apply(plan, Path("out"))                                       # one directory, or
    materialise(plan, "cache").path                                # one directory per content, made once
    plan_reset(plan, reset_file.load(path, key), 1.0, key)         # the same plan with neurons reset on the way

To read in this order: small_file, source, headers, refused, layout, compatible, adapter, patterns, perturb, plan,
reset, reset_file; pieces, progress, progress_bars, digest; elements, adapter_values, whole, combine, stream;
provenance, valid, verify; target, temporary, write_back, journal, locks, write; cache. Nothing here knows verl, Ray or
the console command.
"""

from .cache import Materialised, check_cache, materialise
from .layout import read_checkpoint
from .plan import Plan, at_alpha, plan_fusion
from .progress import bars
from .provenance import read_inputs
from .reset import plan_reset
from .source import is_hub_name
from .stream import Shard
from .verify import verify
from .write import ShardWriter, apply, cores, local, prepare, workers

__all__ = [
    "Materialised",
    "Plan",
    "Shard",
    "ShardWriter",
    "apply",
    "at_alpha",
    "bars",
    "check_cache",
    "cores",
    "is_hub_name",
    "local",
    "materialise",
    "plan_fusion",
    "plan_reset",
    "prepare",
    "read_checkpoint",
    "read_inputs",
    "verify",
    "workers",
]
