# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A cache that not all nodes see is told by the plugin: on a real Ray cluster, of one node."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from checkpoints import make_pair
from omegaconf import OmegaConf

from rejuv_plugin.errors import InputError
from rejuv_plugin.integrations import ray_shards, shared_disk
from rejuv_plugin.integrations.verl import disk_mode
from rejuv_plugin.integrations.verl.job import job_of


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_every_node_opens_a_file_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = ray_shards.nodes()
    assert list(nodes) == [ray.get_runtime_context().get_node_id()]
    cache = tmp_path / "cache"
    shared_disk.check_shared(cache, nodes, "rejuvenation.cache_dir")
    assert list(cache.iterdir()) == []
    ask = shared_disk._ask
    monkeypatch.setattr(shared_disk, "_ask", lambda node, path: ask(node, f"/elsewhere{path}"))
    says = f"expected a disk that all nodes see, got node {next(iter(nodes.values()))}, which does not see {cache} as"
    with pytest.raises(InputError, match=re.escape(f"rejuvenation.cache_dir: {says}")):
        shared_disk.check_shared(cache, nodes, "rejuvenation.cache_dir")


def test_a_node_that_is_lost_is_not_waited_for(tmp_path: Path) -> None:
    shared_disk.check_shared(tmp_path, {"0" * 56: "192.0.2.1"}, "rejuvenation.cache_dir")


def test_disk_mode_asks_where_there_are_more_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pair(tmp_path)
    config = OmegaConf.create(
        {
            "trainer": {"default_local_dir": str(tmp_path / "run"), "resume_mode": "disable"},
            "algorithm": {},
            "actor_rollout_ref": {"model": {"path": str(tmp_path / "sft")}, "actor": {"use_kl_loss": False}},
            "rejuvenation": {"base_path": str(tmp_path / "base")},
        }
    )
    job, here, asked = job_of(config), ray_shards.nodes(), []
    assert job is not None

    def refuse(directory: str, nodes: dict, key: str) -> None:
        asked.append(nodes)
        raise InputError(key, "a disk that all nodes see", "one that does not", "set it")

    monkeypatch.setattr(shared_disk, "check_shared", refuse)
    monkeypatch.setattr(ray_shards, "nodes", lambda: here | {"another": "192.0.2.1"})
    with pytest.raises(InputError, match=r"^rejuvenation.cache_dir: expected a disk that all nodes see"):
        disk_mode.apply(job, config)
    assert [len(nodes) for nodes in asked] == [2]
    assert not (tmp_path / "run").exists(), "asked after the work"
    monkeypatch.setattr(ray_shards, "nodes", lambda: here)
    disk_mode.apply(job, config)
    assert len(asked) == 1
