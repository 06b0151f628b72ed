# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Which of verl's engines it is."""

from typing import Any


def is_megatron(engine: Any) -> bool:
    """Else it is FSDP. By a method, as verl can only import its Megatron engine where megatron-core is."""
    return hasattr(engine, "_build_megatron_module")
