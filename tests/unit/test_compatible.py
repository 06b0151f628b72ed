# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Whether two checkpoints are of one model, at the size of the largest ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rejuv_plugin.checkpoint.compatible import check_compatible
from rejuv_plugin.checkpoint.headers import Header, TensorInfo
from rejuv_plugin.checkpoint.layout import Checkpoint
from rejuv_plugin.errors import InputError

COUNT = 2_000


class Counted(dict):
    """Counts how often all of it is gone through."""

    walks = 0

    def __iter__(self) -> Iterator:
        self.walks += 1
        return super().__iter__()


def checkpoint(root: Path, name: str) -> Checkpoint:
    """``COUNT`` tensors, each named ``name`` with its number in it."""
    root.mkdir()
    (root / "model.safetensors").touch()
    infos = (TensorInfo("model.safetensors", "BF16", (1,), 2 * n, 2 * n + 2, name % n) for n in range(COUNT))
    tensors = Counted((info.name, info) for info in infos)
    headers = {"model.safetensors": Header(b"", tensors, 2 * COUNT)}
    return Checkpoint(f"--{root.name}", str(root), root, root.name, headers, tensors, {}, ())


# By their prefix all are of a module beside the model, by their last part all are missing.
@pytest.mark.parametrize(
    ("name", "key", "lacks"),
    [("other.layers.%d.up.weight", "--sft", "model.layers"), ("model.blocks.%d.up.weight", "--base", "model.blocks")],
)
def test_another_model_is_told_without_going_through_it_again_and_again(
    tmp_path: Path, name: str, key: str, lacks: str
) -> None:
    base, sft = checkpoint(tmp_path / "base", "model.layers.%d.up.weight"), checkpoint(tmp_path / "sft", name)
    with pytest.raises(InputError) as caught:
        check_compatible(base, sft, "refuse", "--grown-vocabulary")
    assert caught.value.key == key
    assert caught.value.got == f"a checkpoint without {lacks}.0.up.weight (and {COUNT - 1} more tensors)"
    assert base.tensors.walks + sft.tensors.walks < 20
