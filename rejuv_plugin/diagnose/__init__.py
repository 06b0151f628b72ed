# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint is like before RL: can it still learn, and what speaks against it?

    inputs = read_inputs("base", ["sft/epoch_2", "sft/epoch_32"], DiagnosisConfig(calibration="data.parquet"))
    metrics = diagnose(inputs)     # what metrics.json holds

To read in this order: signals, evidence, verdict; found; calibration_pass, likelihood, drift, answers, sharpness,
hessian; inputs, made, run. It runs transformers in float32, one model in memory at a time, on the CPU or on one GPU.
"""
