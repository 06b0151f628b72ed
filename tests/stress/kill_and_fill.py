# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""`rejuv apply` killed at random moments, and on a disk that is full at random points.

    python tests/stress/kill_and_fill.py --kills 200 --full 50 [--seed 0] [--directory DIRECTORY]

After each: there is no output, or one that `rejuv verify` accepts; sources have their bytes; the next run, with or
without --resume by turns, completes to the bytes of a run that nobody disturbed. A full disk is also bad input: exit
code 2, one line, nothing left. Exit code 0 if all of that held.

The full disk is a stand-in: the system call that writes gives ENOSPC after a random number of bytes, and goes on doing
so. Killing is real: SIGKILL to a process of its own, at a moment drawn evenly over the time that a whole run takes.
"""

import argparse
import contextlib
import errno
import hashlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from checkpoints import save_model

from rejuv_plugin.checkpoint import pieces, stream, verify
from rejuv_plugin.cli import main as rejuv


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "rejuvenation.json"
    }


def apply(root: Path, output: str, *more: str) -> int:
    """The command, in this process; its exit code."""
    options = [
        "--base",
        str(root / "base"),
        "--sft",
        str(root / "sft"),
        "--output",
        str(root / output),
        "--alpha",
        "0.4",
    ]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            rejuv(["apply", *options, *more])
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def forked(root: Path, seconds: float | None, *more: str) -> float:
    """The command in a process of its own, killed after ``seconds``; the time it had."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # torch makes its pool of threads anew after a fork, and not safely in several threads at once.
            torch.set_num_threads(1)
            code = apply(root, "out", *more)
        except BaseException:
            traceback.print_exc()
        finally:
            # Whatever happened: what the parent still needs, its directory above all, is not the child's to clean up.
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return time.monotonic() - began


class FullDisk:
    """Stands in for a full disk: after ``room`` bytes, every write fails."""

    def __init__(self, room: int) -> None:
        self.room, self.hit = room, False
        self._pwrite = os.pwrite

    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        if self.room <= 0:
            self.hit = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # As a real one does: what still fits is written.
        count = self._pwrite(descriptor, data[: self.room], offset)
        self.room -= count
        return count


class Trial:
    """The sources, and what must hold after each disturbance."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for seed, side in enumerate(("base", "sft")):
            save_model(root / side, seed, hidden_size=256, intermediate_size=688, vocab_size=4096, max_shard_size="2MB")
        self.sources = {side: digests(root / side) for side in ("base", "sft")}
        assert apply(root, "expected") == 0
        self.expected = digests(root / "expected")

    def check(self, what: str, wrong: list[str]) -> bool:
        """Check what is there now; returns whether an output is."""
        for side, before in self.sources.items():
            if digests(self.root / side) != before:
                wrong.append(f"{what}: {side} has changed")
        output = self.root / "out"
        if output.exists() and (verify(output, "out") or digests(output) != self.expected):
            wrong.append(f"{what}: an output that is not right")
        return output.exists()

    def finish(self, what: str, wrong: list[str], *more: str) -> None:
        """The next run; then nothing but the output may be there."""
        if not (self.root / "out").exists() and apply(self.root, "out", *more) != 0:
            wrong.append(f"{what}: the next run failed")
        if not self.check(f"{what}, next run", wrong):
            wrong.append(f"{what}: the next run made nothing")
        left = sorted(path.name for path in self.root.iterdir())
        # A process that was killed leaves its lock file if it was the last to have it; the next run takes it away.
        if [name for name in left if name != ".out.lock"] != ["base", "expected", "out", "sft"]:
            wrong.append(f"{what}: left behind: {left}")
        shutil.rmtree(self.root / "out", ignore_errors=True)


def kill(trial: Trial, count: int, rng: random.Random, wrong: list[str]) -> None:
    whole = sorted(_timed(trial) for _ in range(3))[1]
    outputs = journals = 0
    for i in range(count):
        more = ("--resume",) if i % 2 else ()
        forked(trial.root, rng.uniform(0, 1.1 * whole))
        outputs += trial.check(f"kill {i}", wrong)
        journals += len(list(trial.root.glob("out.tmp-*/.rejuvenation-journal")))
        trial.finish(f"kill {i}", wrong, *more)
    print(f"{count} kills within {1.1 * whole:.2f} s: {outputs} after the end, {journals} with files half-way")


def _timed(trial: Trial) -> float:
    seconds = forked(trial.root, None)
    shutil.rmtree(trial.root / "out")
    return seconds


def fill(trial: Trial, count: int, rng: random.Random, wrong: list[str]) -> None:
    total = sum((trial.root / "expected" / name).stat().st_size for name in trial.expected)
    hits = 0
    for i in range(count):
        disk, more = FullDisk(rng.randrange(total)), (("--resume",) if i % 2 else ())
        with mock.patch.object(os, "pwrite", disk.pwrite):
            code = apply(trial.root, "out", *more)
        hits += disk.hit
        if disk.hit and code != 2:
            wrong.append(f"full disk {i}: exit code {code}")
        if trial.check(f"full disk {i}", wrong) and disk.hit:
            wrong.append(f"full disk {i}: an output in spite of it")
        if disk.hit and not more and list(trial.root.glob("*.tmp-*")):
            wrong.append(f"full disk {i}: something left")
        trial.finish(f"full disk {i}", wrong, *more)
    print(f"{count} runs with a disk that fills up: {hits} were hit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--full", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", help="where to work; default: the system's temporary directory")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Many pieces and runs from small files, so that there are many moments to be killed at.
    pieces.ELEMENTS, stream._RUN_BYTES = 1 << 14, 1 << 18
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        trial = Trial(Path(directory).resolve())
        rng = random.Random(arguments.seed)
        kill(trial, arguments.kills, rng, wrong)
        fill(trial, arguments.full, rng, wrong)
    print("\n".join(wrong) or "all as it should be")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
