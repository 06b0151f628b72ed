# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Files over 4 GiB and tensors of more than 2 ** 31 elements, as files of holes: no offset is cut to 32 bits."""

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import SINGLE, edit_json, make_pair, snapshot
from fusion_reference import canonical_bits, fuse_reference

from rejuv_plugin.checkpoint import apply, combine, plan_fusion, stream
from rejuv_plugin.checkpoint.pieces import ELEMENTS, Pieces
from rejuv_plugin.config import FusionConfig

COUNT = 2**31 + 3 * ELEMENTS + 5


@pytest.mark.parametrize("compiled", [False, True])
def test_the_end_of_a_very_large_tensor(tmp_path: Path, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combine, "kernel", combine.kernel if compiled else lambda: None)
    base, sft = make_pair(tmp_path)
    ends = []
    for seed, side in enumerate((base, sft)):
        end = torch.randn(ELEMENTS + 5, generator=torch.Generator().manual_seed(seed)).bfloat16()
        text = json.dumps({"w": {"dtype": "BF16", "shape": [COUNT], "data_offsets": [0, 2 * COUNT]}}).encode()
        with (side / SINGLE).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.seek(8 + len(text) + 2 * (COUNT - len(end)))
            file.write(end.view(torch.int16).numpy().tobytes())
        edit_json(side / "config.json", tie_word_embeddings=False)
        ends.append(end)
    plan = plan_fusion(str(base), str(sft), FusionConfig(0.4))
    assert plan.parameters_fused == COUNT
    assert plan.weight_bytes > 1 << 32
    *_, before_last, last = stream._runs(plan, SINGLE, Pieces(plan.sft.headers[SINGLE]))
    run = [*before_last, *last][-2:]
    # The rest of the file is a hole, which would take a minute to write.
    with ExitStack() as stack, (tmp_path / "out").open("w+b") as target:
        done = stream._Writer(plan, SINGLE, target, stack).run(run)
    assert (tmp_path / "out").stat().st_size == plan.weight_bytes
    count = sum(piece.piece.length for piece in done) // 2
    with (tmp_path / "out").open("rb") as file:
        file.seek(-2 * count, 2)
        output = torch.frombuffer(bytearray(file.read()), dtype=torch.bfloat16)
    base_end, sft_end = (end[-count:] for end in ends)
    assert count > ELEMENTS
    assert np.array_equal(canonical_bits(output), fuse_reference(base_end, sft_end, 0.4, torch.bfloat16))


def test_read_only_sources(tmp_path: Path) -> None:
    base, sft = make_pair(tmp_path)
    for side in (base, sft):
        for path in (*side.iterdir(), side):
            path.chmod(0o555)
    before = {side: snapshot(side) for side in (base, sft)}
    apply(plan_fusion(str(base), str(sft), FusionConfig()), tmp_path / "out")
    assert {side: snapshot(side) for side in (base, sft)} == before
    for side in (base, sft):
        side.chmod(0o755)
