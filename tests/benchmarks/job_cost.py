# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a verl job of two steps costs in laptop mode, with the fork server and without: job_cost.py DIR [pairs]

Alternating runs of one command on tiny models, so nearly all of it is starting processes. CPU time is that of all
processes below the command, Ray's included, as last seen in samples taken every 0.2 s.
"""

import statistics
import sys
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny
from verl_jobs.job import Job

WITHOUT = [
    "ray_kwargs.ray_init.runtime_env.py_executable=null",
    "ray_kwargs.ray_init._system_config.prestart_worker_first_driver=True",
]


def cost(job: Job) -> tuple[float, float]:
    """Wall and CPU seconds of the job."""
    began = time.monotonic()
    process = job.start()
    command = psutil.Process(process.pid)
    cpu: dict[psutil.Process, float] = {}
    while process.poll() is None:
        for each in (command, *command.children(recursive=True)):
            try:
                times = each.cpu_times()
            except psutil.NoSuchProcess:
                continue
            cpu[each] = times.user + times.system
        time.sleep(0.2)
    assert job.wait(process) == 0, job.log[-3000:]
    return time.monotonic() - began, sum(cpu.values())


def main() -> None:
    root, pairs = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    tiny.save_base(root / "base")
    tiny.save_sft(root / "sft", root / "base")
    tiny.save_data(root / "data")
    costs: dict[str, list[tuple[float, float]]] = {"with": [], "without": []}
    for pair in range(pairs):
        for name, overrides in (("with", []), ("without", WITHOUT)):
            job = Job(root / f"{name}{pair}", root / "sft", root / "data", steps=2, overrides=overrides)
            costs[name].append(cost(job))
            print(f"{name}: wall {costs[name][-1][0]:.1f} s, CPU {costs[name][-1][1]:.1f} s", flush=True)
    for number, what in enumerate(("wall", "CPU")):
        ratios = [a[number] / b[number] for a, b in zip(costs["with"], costs["without"], strict=True)]
        print(f"{what}: {statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f}, {pairs} pairs)")


if __name__ == "__main__":
    main()
