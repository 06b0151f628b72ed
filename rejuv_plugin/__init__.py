# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Rejuvenation of over-trained SFT checkpoints (arXiv 2606.09932) as a verl plugin.

Nothing is imported here: verl loads this package in every process of a job.
"""

__version__ = "0.1.0"
