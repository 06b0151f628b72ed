# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The probe on several ranks ends on all of them together, and they are in step afterwards."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
import torch.distributed as dist
from checkpoints import edit_json, set_weights, weights
from sharded_job import Job, save_pair, without_usage

from rejuv_plugin.checkpoint.layout import read_checkpoint
from rejuv_plugin.errors import InputError
from rejuv_plugin.probe.capture import Call
from rejuv_plugin.probe.dialogue import Example
from rejuv_plugin.probe.sharded.model import Part


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    found = {}
    for name, variant, settings in (("llama", "llama", {}), ("experts", "qwen3-moe", {"rule": "aggregate"})):
        root = tmp_path_factory.mktemp("pair")
        save_pair(root, variant)
        found[name] = Job(root, **settings)
    return found


def errors_of(job: Job, world: int, *arguments: Any) -> list[str]:
    """What every rank ends with; afterwards all are in step, as a measurement shows."""

    def fail_then_measure() -> tuple[str, bool]:
        mine = [a[dist.get_rank()] if isinstance(a, list) else a for a in arguments]
        with pytest.raises(InputError) as caught:
            job.sharded(*mine)
        return str(caught.value), without_usage(job.sharded()) == expected

    expected = without_usage(job.alone)
    found = ranks.run(fail_then_measure, world)
    assert all(in_step for _, in_step in found)
    return [message for message, _ in found]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (("config.json",), "--sft: expected weight files that every rank can read, got No such file"),
        ((), "--sft: expected a causal language model that transformers loads, got "),
    ],
)
def test_a_rank_that_does_not_see_the_files(
    jobs: dict[str, Job], tmp_path: Path, files: Sequence[str], says: str
) -> None:
    plan = jobs["llama"].plan
    for file in files:
        (tmp_path / file).write_text((plan.sft.root / file).read_text())
    elsewhere = replace(plan, sft=replace(plan.sft, root=tmp_path))
    first, second, third = errors_of(jobs["llama"], 3, [plan, elsewhere, plan])
    assert first == second == third
    assert first.startswith(says)
    assert "(on rank 1 of 3, " in first


def test_a_checkpoint_without_a_tensor(tmp_path: Path) -> None:
    save_pair(tmp_path, "qwen3-moe")
    job, tensors = Job(tmp_path), weights(tmp_path / "sft")
    del tensors["model.layers.0.mlp.experts.3.up_proj.weight"], tensors["model.norm.weight"]
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((tmp_path / "sft" / "config.json").read_text())
    set_weights(broken, tensors)
    plan = replace(job.plan, sft=replace(read_checkpoint(str(broken), "--sft"), tensors=job.plan.sft.tensors))
    first, second = errors_of(job, 2, plan)
    assert first == second
    assert first.startswith("--sft: expected weight files that every rank can read, got")
    plan = replace(job.plan, base=read_checkpoint(str(broken), "--base"))
    assert ["mlp.experts.3.up_proj.weight" in error for error in errors_of(job, 2, plan)] == [True] * 2
    edit_json(broken / "config.json", hidden_act="of our own")
    assert "--base: expected a causal language model" in errors_of(job, 2, plan)[1]


@pytest.mark.parametrize("side", ["base", "sft"])
def test_weights_that_are_not_finite(tmp_path: Path, side: str) -> None:
    save_pair(tmp_path, "qwen2")
    job, tensors = Job(tmp_path), weights(tmp_path / side)
    # A token that only the second example has.
    token = (set(job.examples[1].ids) - set(job.examples[0].ids) - set(job.examples[2].ids)).pop()
    tensors["model.embed_tokens.weight"][token] = float("nan")
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "config.json").write_text((tmp_path / side / "config.json").read_text())
    set_weights(bad, tensors)
    plan = replace(job.plan, **{side: read_checkpoint(str(bad), f"--{side}")})
    found = errors_of(job, 3, plan)
    assert len(set(found)) == 1
    assert found[0].startswith(f"--{side}: expected finite activations on the calibration data, ")
    assert "got NaN or infinity in example 1 (on rank 1 of 3, " in found[0]


def test_a_rank_that_fails_in_the_middle_of_a_pass(jobs: dict[str, Job]) -> None:
    job = jobs["experts"]
    good = job.examples[0]
    # No such token: the first module of the first pass fails; no such position: what comes after its last module.
    for bad, says in ((Example((5, 9999), (1,)), "index out of range"), (Example((5, 6), (9,)), "out of bounds")):
        found = errors_of(job, 2, None, (good, bad))
        assert found[0] == found[1]
        assert re.match(
            "--base: expected work that succeeds on every rank, got IndexError on rank 1 of 2, .*: ", found[0]
        )
        assert says in found[0]


@pytest.mark.parametrize(("owner", "method", "call"), [(Call, "again", 2), (Part, "gather", 20)])
def test_a_gpu_that_has_no_memory_left(
    jobs: dict[str, Job], monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, call: int
) -> None:
    """In a backward pass, and when a layer is to be gathered. The error is a stand-in: there is no GPU here."""
    original, calls = getattr(owner, method), 0

    def full(*args: Any) -> Any:
        nonlocal calls
        if dist.is_initialized() and dist.get_rank() == 1:
            calls += 1
            if calls == call:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(*args)

    monkeypatch.setattr(owner, method, full)
    first, second = errors_of(jobs["llama"], 2)
    assert first == second
    assert first.startswith("--sft: expected room for 1/2 of the model in float32, ")
    assert re.search(r"OutOfMemoryError on rank 1 of 2, .*: CUDA out of memory\.", first)
    assert "--max_tokens" in first
