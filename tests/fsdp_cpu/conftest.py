# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator

import pytest
from rank_server import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server("fsdp_cpu.engines", VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_PLUGINS="rejuvenation_cpu")
    yield server
    server.close()
