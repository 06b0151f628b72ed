# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Which alpha (and rho) to start RL from, chosen by what fused models answer; no RL is run.

To read in this order: objective, scored, compare, search, record; data, question; trace, with_vllm, ask; earlier, run,
cache.
"""
