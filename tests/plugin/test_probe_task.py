# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Where models are probed: a task of a real Ray cluster whose GPU is one by name only."""

import os
import sys
from collections.abc import Iterator

import pytest
import ray
import torch

from rejuv_plugin.config import ResetConfig
from rejuv_plugin.errors import InputError
from rejuv_plugin.integrations.verl import probe_task
from rejuv_plugin.integrations.verl.probe_task import placed, run


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    # Workers cannot import this file.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ray.shutdown()


def where() -> tuple[int, dict[str, float], str | None]:
    resources = ray.get_runtime_context().get_assigned_resources()
    return os.getpid(), resources, os.environ.get("CUDA_VISIBLE_DEVICES")


def fail(kind: str) -> None:
    raise {"ours": InputError("k", "x", "y", "z"), "file": FileNotFoundError(2, "gone", "/a"), "other": KeyError(1)}[
        kind
    ]


def gpus() -> float:
    return ray.available_resources().get("GPU", 0)


def test_the_gpu_is_free_again_when_the_task_is_over() -> None:
    # verl counts free GPUs once, right after.
    for _ in range(3):
        pid, resources, visible = run(where, device="cuda")
        assert gpus() == 1
        assert pid != os.getpid()
        assert resources == {"CPU": 1, "GPU": 1}
        assert visible == "0"


def test_on_the_cpu_a_task_has_the_nodes_free_cpus() -> None:
    _, resources, _ = run(where, device="cpu")
    assert resources == {"CPU": min(2, os.cpu_count() or 1)}


def test_of_several_visible_gpus_a_task_takes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are none here: torch's part is played."""
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: ["3"])
    assert probe_task._on_its_gpu(sum, [1, 2]) == 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert probe_task._on_its_gpu(sum, [1, 2]) == 3
    assert taken == [3], "alone it has the number 0"


def test_what_a_task_raises() -> None:
    with pytest.raises(InputError, match=r"^k: expected x, got y. Fix: z.$"):
        run(fail, "ours", device="cuda")
    assert gpus() == 1
    with pytest.raises(InputError, match=r"^rejuvenation.reset.device: .*no /a there"):
        run(fail, "file", device="cpu")
    with pytest.raises(ray.exceptions.RayTaskError, match="KeyError"):
        run(fail, "other", device="cpu")


@pytest.mark.parametrize(
    ("asked", "trains_on", "expected"),
    [("auto", "cuda", "cuda"), ("auto", "cpu", "cpu"), ("auto", "npu", "cpu"), ("cpu", "cuda", "cpu")],
)
def test_where_it_goes(asked: str, trains_on: str, expected: str) -> None:
    settings = ResetConfig(ratio=0.01, device=asked)
    assert placed(settings, trains_on, "k").device == expected


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"^k: expected a GPU in the Ray cluster, got a job with trainer.device=cpu"):
        placed(ResetConfig(ratio=0.01, device="cuda"), "cpu", "k")
