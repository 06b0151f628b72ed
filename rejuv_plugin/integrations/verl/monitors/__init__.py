# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Plasticity monitors in verl's workers and trainers.

Methods of an engine's *instance* are wrapped, so other engines in the process, and other roles, stay as they are.
"""
