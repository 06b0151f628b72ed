# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The kernel for GPUs, in Triton's interpreter: its arithmetic, but not its speed nor the GPU's own rounding."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import token_logits
import torch

pytest.importorskip("triton")

# Triton reads the environment when it is imported.
_RUN = """
import sys, torch
from rejuv_plugin.ops.moments_triton import moments
torch.save([moments(*arguments) for arguments in torch.load(sys.argv[1])], sys.argv[2])
"""


def test_the_kernel_says_what_torch_does(tmp_path: Path) -> None:
    """Vocabularies of less than a block, of more, and in strides of any kind; NaN, both infinities, and no rows."""
    cases = [
        token_logits.case(dtype, vocabulary) for dtype in (torch.float32, torch.bfloat16) for vocabulary in (40, 9001)
    ]
    logits, rows, temperature = cases[0]
    cases.append((logits.T.contiguous().T, rows[::2], temperature[::2]))
    inf, nan = torch.inf, torch.nan
    bad = torch.tensor([[0, nan, 1], [inf, 0, 0], [0, inf, 0], [-inf, -inf, -inf], [0, 1, 2]])
    torch.save([*cases, (bad, torch.arange(5), torch.ones(5)), (bad, torch.arange(0), torch.ones(0))], tmp_path / "in")
    command = [sys.executable, "-W", "ignore", "-c", _RUN, str(tmp_path / "in"), str(tmp_path / "out")]
    subprocess.run(command, check=True, env=os.environ | {"TRITON_INTERPRET": "1"})
    *found, of_bad, of_none = torch.load(tmp_path / "out")
    for (logits, rows, temperature), (peak, *sums) in zip(cases, found, strict=True):
        assert torch.equal(peak, logits[rows].amax(-1).float())
        token_logits.check(torch.stack(sums), logits[rows], temperature)
    assert of_bad[1].isnan().tolist() == [True, True, True, False, False]
    assert of_bad[1:, 3].tolist() == [0, 0], "a shard without any possible token adds nothing"
    assert of_none.shape == (3, 0)
