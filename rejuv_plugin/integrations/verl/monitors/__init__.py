# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What feeds the monitors: verl's engines, FSDP1, FSDP2 and Megatron.

Methods of an engine's *instance* are wrapped, so other engines in the process, and other roles, stay as they are.
"""
