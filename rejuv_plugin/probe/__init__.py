# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Models on calibration data: which neurons carry what SFT changed most.

    found = measure(plan, ResetConfig(ratio=0.01, calibration="data.parquet"), read_inputs(plan), "--")  # a `ResetSet`

To read in this order: prompts, calibration, load, dialogue, entropy_scan, experts, capture, attribute, usage, measure;
sample; cache. It runs transformers in float32 on the CPU or on one GPU, one example at a time.
"""
