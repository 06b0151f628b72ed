# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
import tiny


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a ``base`` and an ``sft`` checkpoint and ``data``."""
    root = tmp_path_factory.mktemp("models")
    tiny.save_base(root / "base")
    tiny.save_sft(root / "sft", root / "base")
    tiny.save_data(root / "data")
    return root
