# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Small files: what is in them may be anything."""

from pathlib import Path

import pytest

from rejuv_plugin.checkpoint.small_file import read_json
from rejuv_plugin.tune.earlier import keep


@pytest.mark.parametrize("content", ["", "{", "[" * 99999, '{"a":' * 99999], ids=["empty", "cut", "lists", "objects"])
def test_what_is_no_json_is_a_value_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(ValueError):
        read_json(file)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json")


def test_an_earlier_result_that_is_nested_without_end_stays(tmp_path: Path) -> None:
    (tmp_path / "tuning.json").write_text("[" * 99999)
    keep(tmp_path, "another")
    assert (tmp_path / "tuning.1.json").read_text() == "[" * 99999
