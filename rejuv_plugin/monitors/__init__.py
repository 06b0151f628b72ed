# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Plasticity of a policy while it learns: what is measured, when it is alarming, and what is kept of it.

Sums and counts are made where the tensors are, added up over all ranks, and turned into metrics once: a ratio of sums
is the same at any world size, a mean of ratios is not.
"""
