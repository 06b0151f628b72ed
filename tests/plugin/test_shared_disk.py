# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint that not all nodes see is told by the plugin: on a real Ray cluster, of one node."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from checkpoints import make_pair
from omegaconf import OmegaConf

from rejuv_plugin.errors import InputError
from rejuv_plugin.integrations import ray_shards
from rejuv_plugin.integrations.verl import disk_mode, shared_disk
from rejuv_plugin.integrations.verl.job import job_of


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_every_node_opens_the_manifest(tmp_path: Path) -> None:
    (nodes,) = [shared_disk.nodes()]
    assert list(nodes) == [ray.get_runtime_context().get_node_id()]
    (tmp_path / "rejuvenation.json").write_text("{}")
    shared_disk.check_seen(tmp_path, nodes, "rejuvenation.cache_dir")
    (tmp_path / "rejuvenation.json").unlink()
    says = f"expected a disk that all nodes see, got node {next(iter(nodes.values()))}, which does not see {tmp_path}."
    with pytest.raises(InputError, match=re.escape(f"rejuvenation.cache_dir: {says} Fix: set it to a shared disk, or")):
        shared_disk.check_seen(tmp_path, nodes, "rejuvenation.cache_dir")


def test_a_node_that_is_lost_is_not_waited_for(tmp_path: Path) -> None:
    shared_disk.check_seen(tmp_path, {"0" * 56: "192.0.2.1"}, "rejuvenation.cache_dir")


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
    job, here = job_of(config), shared_disk.nodes()
    assert job is not None
    asked = []
    monkeypatch.setattr(shared_disk, "check_seen", lambda path, nodes, key: asked.append((path, len(nodes))))
    disk_mode.apply(job, config)
    assert not asked
    monkeypatch.setattr(shared_disk, "nodes", lambda: here | {"another": "192.0.2.1"})
    assert ray_shards.nodes() == 1
    disk_mode.apply(job, config)
    assert asked == [(Path(config.actor_rollout_ref.model.path), 2)]
