# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Models on calibration data: which neurons carry what SFT changed most.

    found = measure(plan, ResetConfig(ratio=0.01, calibration="data.parquet"), read_inputs(plan), "--")  # a `ResetSet`

To read in this order: prompts, calibration, load, dialogue, decoder, gathered, entropy_scan, experts, capture,
attribute, ranks, tallies, passes, usage, measure; sharded; tasks, answers, reward, sample; cache. It runs transformers
in float32, one example at a time, on the CPU or on one GPU; answers are sampled in batches. Models that fit none:
`measure.measure_sharded` spreads them over the ranks of a job, each with an example of its own, and finds the same set.
"""
