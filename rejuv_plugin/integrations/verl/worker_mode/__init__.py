# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Worker mode: every worker loads rejuvenated weights, where it would have loaded the SFT checkpoint's.

Nothing is written to a disk and nothing waits for one: base and SFT checkpoint need to be readable on every node, at
the same path. To read in this order: refuse, start, engines, coverage, beginning, worker (in each worker); mode (in the
trainer).
"""
