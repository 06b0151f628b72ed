# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A model that fits no single device: in float32, its rows spread over the ranks of a job, whole one layer at a time.

To read in this order: rows (where a parameter's values lie in the files), model (FSDP2 keeps them, and who gathers what
when), load.
"""
