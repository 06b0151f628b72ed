# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""`rejuv apply --ray` on a cluster of three nodes on this machine: the bytes of one process, even if a node is lost."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from checkpoints import save_model
from ray._private import services
from ray.cluster_utils import Cluster

from rejuv_plugin.checkpoint import Plan, apply, local, materialise, plan_fusion
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.errors import InputError
from rejuv_plugin.integrations import ray_shards, shared_disk


@pytest.fixture(scope="module")
def started() -> Iterator[Cluster]:
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=made.address)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def cluster(started: Cluster) -> Cluster:
    """Three nodes, also after a test that lost one."""
    while len(started.list_all_nodes()) < 3:
        started.add_node(num_cpus=1)
    started.wait_for_nodes()
    return started


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "max_shard_size": "1MB"}
    base, sft = (save_model(tmp_path / name, seed, **sizes) for seed, name in enumerate(("base", "sft")))
    return plan_fusion(str(base), str(sft), FusionConfig(0.4))


def record(plan: Plan, output: Path, **options: object) -> dict:
    found = apply(plan, output, **options)
    for entry in ("created", "seconds"):
        del found[entry]
    return found


def test_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """First: in the cluster of the other tests this process has nothing to look for."""
    assert not ray.is_initialized()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda temp_dir: None)
    # Ray looks for any cluster's processes, too: it would join that of a job of the other stream of tests, and end this
    # process, without a word, a minute after that job.
    services.find_gcs_addresses.cache_clear()
    monkeypatch.setattr(services, "_find_address_from_flag", lambda flag: set())
    with pytest.raises(InputError, match=r"^--ray: expected a Ray cluster .*Fix: start one"):
        ray_shards.connect("--ray")


def test_three_nodes_write_what_one_process_writes(tmp_path: Path, plan: Plan, cluster: Cluster) -> None:
    assert len(ray_shards.nodes()) == 3
    shared_disk.check_shared(tmp_path / "cache", ray_shards.nodes(), "rejuvenation.cache_dir")
    assert list((tmp_path / "cache").iterdir()) == []
    expected = record(plan, tmp_path / "alone", shards=local(1))
    assert record(plan, tmp_path / "together", shards=ray_shards.over_cluster()) == expected
    assert materialise(plan, tmp_path / "cache", shards=ray_shards.over_cluster()).manifest["key"] == expected["key"]


def test_a_node_that_sees_other_inputs_writes_nothing(tmp_path: Path, plan: Plan) -> None:
    file = next(iter(plan.layout.headers))
    shared = plan, ray_shards._stamps(plan)
    (tmp_path / "out").mkdir()
    assert ray_shards._write(shared, file, str(tmp_path / "elsewhere")) is None
    os.utime(plan.base.root / next(iter(plan.base.headers)), ns=(0, 0))
    assert ray_shards._write(shared, file, str(tmp_path / "out")) is None
    assert list((tmp_path / "out").iterdir()) == []
    assert ray_shards._write((plan, ray_shards._stamps(plan)), file, str(tmp_path / "out")).file == file


def test_what_the_nodes_do_not_see_is_written_here(
    tmp_path: Path, plan: Plan, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = record(plan, tmp_path / "alone", shards=local(1))
    # All nodes are on this machine and see everything: stands in for a disk that is not shared.
    monkeypatch.setattr(ray_shards, "_write", lambda plan, file, directory: None)
    assert record(plan, tmp_path / "out", shards=ray_shards.over_cluster()) == expected
    assert "is written here" in caplog.text


def test_an_error_of_a_task_is_raised_here(tmp_path: Path, plan: Plan, cluster: Cluster) -> None:
    def cut(phase: str, done: int, total: int) -> None:
        for file in (tmp_path / "sft").glob("*.safetensors"):
            with file.open("r+b") as opened:
                opened.truncate(100)

    with pytest.raises(OSError, match="changed while it was read"):
        apply(plan, tmp_path / "out", shards=ray_shards.over_cluster(), progress=cut)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "sft"]


def test_the_command_joins_the_cluster(tmp_path: Path, plan: Plan, cluster: Cluster) -> None:
    options = [
        "--base",
        plan.base.root,
        "--sft",
        plan.sft.root,
        "--output",
        tmp_path / "out",
        "--alpha",
        "0.4",
        "--ray",
    ]
    script = "from rejuv_plugin.cli import main; main()"
    command = [sys.executable, "-c", script, "apply", *map(str, options)]
    # Other clusters may run on this machine.
    environment = os.environ | {"RAY_ADDRESS": cluster.address}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    alone = record(plan, tmp_path / "alone", shards=local(1))
    for file in alone["outputs"]:
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "alone" / file).read_bytes()


def test_a_node_is_lost_midway(tmp_path: Path, plan: Plan, cluster: Cluster) -> None:
    """Last: no other node has to take its place."""
    expected = record(plan, tmp_path / "alone", shards=local(1))
    files = len(plan.layout.headers)
    assert files > 12
    finished = []

    def lose_a_node(phase: str, done: int, total: int) -> None:
        finished.append(done)
        if len(finished) == 4:
            # As when the power goes: no task of it can end in order.
            cluster.remove_node(sorted(cluster.worker_nodes, key=lambda node: node.node_id)[0], allow_graceful=False)

    assert record(plan, tmp_path / "out", shards=ray_shards.over_cluster(), progress=lose_a_node) == expected
    assert len(finished) > files
    deadline = time.monotonic() + 60
    while len(ray_shards.nodes()) > 2 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert len(ray_shards.nodes()) == 2, "no node was lost"
