# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a neuron is in each architecture, and sets of neurons: pure data, by the tensor names of HF checkpoints.

To read in this order: architectures (constants a family), modules (those constants on one checkpoint), reset_set.
"""
