# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from megatron_cpu import ranks


@pytest.fixture(autouse=True)
def _megatron_is_installed() -> None:
    if not ranks.installed():
        pytest.skip("megatron-core is not installed: bash tests/run.sh installs it")
