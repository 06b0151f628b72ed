# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Ray workers from the fork server of laptop mode: one import for all, and else what Ray starts."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest
import ray

from rejuv_plugin.integrations.verl.cpu import fork_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fork server needs Linux")


@pytest.fixture(scope="module", autouse=True)
def _workers_cannot_import_this_file() -> Iterator[None]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@contextmanager
def session() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"py_executable": fork_server.py_executable(), "env_vars": {"VERL_PLATFORM": "cpu"}},
    )
    try:
        yield
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def _session(_workers_cannot_import_this_file: None) -> Iterator[None]:
    with session():
        yield


@ray.remote
class Worker:
    def __init__(self) -> None:
        self.imported = "verl.workers.engine_workers" in sys.modules

    def described(self) -> dict:
        import numpy
        import torch

        return {
            "pid": os.getpid(),
            "imported": self.imported,
            "draw": numpy.random.rand(),
            "threads": torch.get_num_threads(),
            "main": sys.modules["__main__"].__file__,
            "path": sys.path,
            "argv": sys.argv,
            "directory": os.getcwd(),
            "environment": dict(os.environ),
            "group": os.getpgrp(),
            "child_signal": signal.getsignal(signal.SIGCHLD),
            "stdout": os.readlink("/proc/self/fd/1"),
        }


def started(**env_vars: str) -> tuple[ray.actor.ActorHandle, dict]:
    actor = Worker.options(runtime_env={"env_vars": env_vars}).remote()
    return actor, ray.get(actor.described.remote(), timeout=300)


@pytest.fixture(scope="module")
def two(_session: None) -> list[tuple[ray.actor.ActorHandle, dict]]:
    return [started(RANK=str(rank)) for rank in range(2)]


@pytest.fixture(scope="module")
def plain(two: list) -> dict:
    """A worker whose environment differs from the server's in what an import may have read."""
    return started(REJUV_TEST_OTHER="1")[1]


def command(pid: int) -> list[str]:
    return psutil.Process(pid).cmdline()


def test_workers_are_forked_from_one_process(two: list) -> None:
    servers = {psutil.Process(found["pid"]).ppid() for _, found in two}
    assert len(servers) == 1
    assert "rejuv_plugin.integrations.verl.cpu.fork_server" in command(*servers)
    assert [found["imported"] for _, found in two] == [True, True]


def test_each_has_its_own_environment_and_randomness(two: list) -> None:
    assert [found["environment"]["RANK"] for _, found in two] == ["0", "1"]
    assert len({found["draw"] for _, found in two}) == 2


def test_another_environment_is_started_by_ray_alone(plain: dict) -> None:
    assert not plain["imported"]
    assert "raylet" in command(psutil.Process(plain["pid"]).ppid())[0]
    assert plain["environment"]["REJUV_TEST_OTHER"] == "1"


def test_a_forked_worker_is_like_one_of_rays(two: list, plain: dict) -> None:
    forked = two[0][1]
    for same in ("main", "path", "threads", "directory", "child_signal"):
        assert forked[same] == plain[same], same
    assert forked["argv"][0] == plain["argv"][0]
    assert forked["group"] == forked["pid"]
    assert plain["group"] == plain["pid"]
    assert str(forked["pid"]) in forked["stdout"]
    differing = {k for k, v in forked["environment"].items() if plain["environment"].get(k) != v}
    assert differing <= {"RANK"}


def until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.1)
    return holds()


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def stubs() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "fork_server" in " ".join(process.cmdline()) and process.parent().name() == "raylet":
                found.append(process)
    return found


def test_a_killed_actor_leaves_nothing(two: list, plain: dict) -> None:
    before = stubs()
    actor, found = started(RANK="2")
    assert len(stubs()) == len(before) + 1
    ray.kill(actor)
    assert until(lambda: gone(found["pid"]))
    assert until(lambda: stubs() == before)


def test_ray_hears_of_a_worker_that_dies(two: list) -> None:
    actor, found = started(RANK="3")
    os.kill(found["pid"], signal.SIGKILL)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.described.remote(), timeout=60)


def test_the_server_ends_with_its_raylet(two: list) -> None:
    """And with it the session that the tests above share."""
    server = psutil.Process(two[0][1]["pid"]).ppid()
    ray.shutdown()
    assert until(lambda: gone(server))


def test_without_a_server_ray_starts_the_worker() -> None:
    with session():
        actor = Worker.options(runtime_env={"env_vars": {"RANK": "0"}}).remote()
        assert until(lambda: any(stub.children() for stub in stubs()))
        ((server,),) = [stub.children() for stub in stubs()]
        server.kill()  # while it imports
        assert not ray.get(actor.described.remote(), timeout=300)["imported"]
