# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A rank for each GPU of this machine, with NCCL, as verl's workers are: ``run(function, "argument")``."""

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing


def run(function: Callable[..., Any], *args: Any) -> list[Any]:
    """Call ``function(device, *args)``, of a module's top level, on new processes; an error of any is raised here.

    Returns:
        What each rank returned, by rank; on the CPU.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = torch.cuda.device_count()
    with tempfile.TemporaryDirectory(prefix="ranks-") as directory:
        torch.multiprocessing.spawn(_rank, (world, port, Path(directory), function, args), nprocs=world)
        return [torch.load(Path(directory, str(rank)), map_location="cpu", weights_only=False) for rank in range(world)]


def _rank(rank: int, world: int, port: int, results: Path, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl", rank=rank, world_size=world)
    try:
        torch.save(function(device, *args), results / str(rank))
    finally:
        torch.distributed.destroy_process_group()
