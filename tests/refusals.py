# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a refused plan or output looks like."""

from pathlib import Path

import pytest
from checkpoints import snapshot

from rejuv_plugin.checkpoint import apply, plan_fusion
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.errors import InputError


def assert_refused(tmp_path: Path, key: str, *says: str, output: str = "out", base: str = "base", sft: str = "sft"):
    """Plan and apply; the error names ``key`` and says all of ``says``; the directory is as before."""
    before = snapshot(tmp_path)
    with pytest.raises(InputError) as caught:
        apply(plan_fusion(str(tmp_path / base), str(tmp_path / sft), FusionConfig()), tmp_path / output)
    message = str(caught.value)
    assert message.startswith(f"{key}: expected ")
    assert "Fix: " in message
    assert "\n" not in message
    for part in says:
        assert part in message
    assert snapshot(tmp_path) == before
