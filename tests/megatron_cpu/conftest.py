# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from rank_server import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    packages = Path(sys.prefix, "beside", "megatron")  # where constraints/install.sh puts megatron-core and the bridges
    if not packages.is_dir() and not find_spec("megatron"):
        pytest.skip("megatron-core is not installed: bash tests/run.sh installs it")
    # The stand-ins first.
    worker = "rejuv_plugin.integrations.verl.worker_mode.worker"
    server = Server("megatron_cpu.engines", worker, path=str(packages))
    yield server
    server.close()
