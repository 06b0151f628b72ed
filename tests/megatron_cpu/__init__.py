# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's own Megatron engine, unmodified, on a machine without a GPU: ranks over gloo, real megatron-core and bridges.

Stand-ins are for missing hardware only: `cuda_stand_in` (CUDA is the CPU) and `transformer_engine_stand_in` (the layers
of Transformer Engine, which has no CPU build, in plain torch with the same parameters). Both change torch and megatron
for a whole process, so no test's process imports them, but a `rank_server`.

This package is not called ``megatron``: beside the tests, that would be taken for the real one.
"""
