# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's own FSDP engines on ranks over gloo, on the laptop's platform, without Ray.

The platform is chosen when verl is imported, so no test's process imports it, but a `rank_server`.
"""
