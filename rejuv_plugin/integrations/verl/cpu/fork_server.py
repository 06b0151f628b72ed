# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Ray workers that are forked from one process, which has imported torch, transformers and verl once for all of them.

A verl job has some ten processes, and each spends six to nine seconds of CPU time on the same imports: on two cores
that is most of a small job. Ray has no fork server, but lets a runtime environment name the command that starts a
worker (``py_executable``); laptop mode names this module:

1. Ray runs ``python -m <this module> default_worker.py <arguments>`` in the worker's environment. That light process,
   the *stub*, asks the fork server of this Ray session for a worker; the first stub forks the server.
2. The server forks the worker, which takes over the stub's arguments, environment, directory and streams and runs
   ``default_worker.py``, as ``python default_worker.py`` would have. The stub ends when the worker does.
3. The server ends with its raylet.

A worker whose environment differs from the server's in more than its rank is started the ordinary way, since imports
may have looked at it; so is every worker when there is no server, whatever the reason. Linux only.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import signal
import socket
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

PRELOADED = (
    "ray._private.node",
    "verl.trainer.main_ppo",
    "verl.trainer.ppo.v1",
    "verl.workers.engine_workers",
    f"{__package__}.rollout.server",
)
"""What the processes of a job import between them."""

_OF_ONE_WORKER = frozenset(
    ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "WG_PREFIX", "WG_BACKEND", "RAY_LOCAL_WORLD_SIZE")
)
"""Variables that verl sets for each worker and that no import reads."""

_LENGTH = struct.Struct("!I")
_CREDENTIALS = struct.Struct("3i")  # process, user, group
_YES, _NO = b"y", b"n"


def py_executable() -> str | None:
    """The command for Ray's ``runtime_env["py_executable"]``; None, which is Ray's own way, if this is not Linux."""
    if sys.platform != "linux":
        return None
    return shlex.join((sys.executable, "-m", f"{__package__}.fork_server"))


def main(worker: list[str]) -> None:
    """Be the stub of ``worker``, a script and its arguments. Returns in forked workers alone, ready to run theirs."""
    sys.path[0] = os.path.dirname(worker[0])  # as for ``python default_worker.py``
    path = _socket_path(worker)
    listener = _listener(path)
    if listener is not None:
        if os.fork() == 0:
            _become(_served(listener))
            return
        listener.close()
    with contextlib.suppress(OSError):
        connection = _connection(path)
        _send(connection, worker)
        if connection.recv(1) == _YES:
            connection.recv(1)  # nothing comes: the worker holds the other end until it ends
            os._exit(0)
    os.execv(sys.executable, [sys.executable, *worker])


def _socket_path(worker: list[str]) -> str:
    """Beside Ray's own sockets of the session; nowhere, so that there is no server, if Ray does not say where."""
    raylet = next((value for name, _, value in (each.partition("=") for each in worker) if name == "--raylet-name"), "")
    return os.path.join(os.path.dirname(raylet) or os.devnull, "fork_server")


def _listener(path: str) -> socket.socket | None:
    """The server's end, for one stub of the session."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
    except OSError:
        listener.close()
        return None
    listener.listen(128)
    return listener


def _connection(path: str) -> socket.socket:
    for _ in range(100):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
        except ConnectionRefusedError:
            connection.close()
            time.sleep(0.02)  # bound, but not listening yet; or no longer
        else:
            _require_same_user(connection)
            return connection
    raise ConnectionRefusedError(path)


def _require_same_user(connection: socket.socket) -> None:
    """Ray's session directory is open to everyone on the machine; whoever starts processes here may not be."""
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(peer)
    if user != os.getuid():
        raise PermissionError(f"fork server: expected user {os.getuid()}, got {user}")


@dataclass(frozen=True)
class _Order:
    worker: list[str]
    environment: dict[str, str]
    directory: str
    streams: list[int]
    connection: socket.socket


def _send(connection: socket.socket, worker: list[str]) -> None:
    order = json.dumps([worker, dict(os.environ), os.getcwd()]).encode()
    socket.send_fds(connection, [_LENGTH.pack(len(order))], [0, 1, 2])
    connection.sendall(order)


def _received(connection: socket.socket) -> _Order:
    header, streams, _, _ = socket.recv_fds(connection, _LENGTH.size, 3)
    with connection.makefile("rb") as order:
        worker, environment, directory = json.loads(order.read(*_LENGTH.unpack(header)))
    return _Order(worker, environment, directory, streams, connection)


def _served(listener: socket.socket) -> _Order:
    """Be the server until the raylet ends. Returns in the workers that it forks."""
    try:
        os.setsid()  # or what ends the first worker's process group ends the server
        own = _without_rank(os.environ)
        raylet = os.pidfd_open(int(os.environ["RAY_RAYLET_PID"]))
        _import_all()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the workers
        while raylet not in select.select([listener, raylet], [], [])[0]:
            order = _accepted(listener)
            if order is None:
                continue
            if _without_rank(order.environment) != own:
                with contextlib.suppress(OSError):
                    order.connection.send(_NO)
            elif os.fork() == 0:
                os.close(raylet)
                listener.close()
                return order
            order.connection.close()
            for stream in order.streams:
                os.close(stream)
    except BaseException:
        traceback.print_exc()
    os._exit(0)


def _accepted(listener: socket.socket) -> _Order | None:
    """The next order; None if the stub is gone, or somebody else's."""
    connection, _ = listener.accept()
    try:
        _require_same_user(connection)
        return _received(connection)
    except (OSError, ValueError, struct.error):
        connection.close()
        return None


def _without_rank(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in _OF_ONE_WORKER}


def _import_all() -> None:
    # Ray gives a worker without the variable one thread for its CPU, in time for torch's import. Here it is too late.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    gc.disable()  # nothing that is imported is garbage, and looking for it took a tenth of the time
    for name in PRELOADED:
        importlib.import_module(name)
    # pyarrow has a thread for its allocator, which expects forks. Python 3.12 warns of any thread.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    # Leave the memory of what was imported shared: a collection would write to all of it.
    gc.collect()
    gc.freeze()
    gc.enable()


def _become(order: _Order) -> None:
    """Turn this forked process into what ``python default_worker.py ...`` would be, but for the imports."""
    import numpy

    os.setpgrp()  # Ray gives each worker a process group
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(order.streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.directory)
    sys.argv[:] = order.worker
    numpy.random.seed()  # Python's own generator sees to it by itself; torch's starts from a constant anyway
    order.connection.send(_YES)
    order.connection.detach()  # open until this process ends


if __name__ == "__main__":
    main(sys.argv[1:])
    runpy.run_path(sys.argv[0], run_name="__main__")
