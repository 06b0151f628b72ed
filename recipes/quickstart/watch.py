# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Run one verl command with its output in a log file and one live line per step on the console.

python watch.py --arm over --steps 50 --dir out/runs/x/over -- bash run_nav_fsdp2.sh ...

Reads the metrics file that verl's `file` logger writes. On failure prints the log's last 40 lines. Leaves `run.json` in
the directory: seconds, peak memory and exit code.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

import psutil

LAST_LINES = 40

# What verl calls the mean reward of a step.
REWARD = "critic/score/mean"


def read_records(path: Path) -> list[dict[str, Any]]:
    """The complete lines of verl's metrics file: {"step": ..., "data": {...}}."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def describe(records: list[dict[str, Any]], steps: int) -> str:
    """The live line; empty before there is anything to tell."""
    # verl may log a step twice (its checkpoint's metrics for one): only a whole step has its timing.
    trained = [record for record in records if record["step"] > 0 and "timing_s/step" in record["data"]]
    if not trained:
        for name, value in (item for record in records for item in record["data"].items()):
            if re.match(r"val-core/\w+_in/acc/mean@", name):
                return f"start checkpoint: accuracy {value:.3f} on the held-out problems; first step ..."
        return ""
    data = trained[-1]["data"]
    pace = mean(record["data"]["timing_s/step"] for record in trained[-10:])
    left = pace * (steps - trained[-1]["step"])
    return (
        f"step {trained[-1]['step']:>3}/{steps}  reward {data[REWARD]:.3f}  entropy {data['actor/entropy']:.3f}"
        f"  {pace:.1f} s/step  {left:.0f} s left"
    )


def describe_transform(records: list[dict[str, Any]]) -> str:
    """What the plugin did to the checkpoint before the first step; empty without the plugin's flag."""
    for data in (record["data"] for record in records):
        if "training/rejuvenation/alpha" in data:
            before, after = data["training/rejuvenation/drift_sft"], data["training/rejuvenation/drift_start"]
            alpha = data["training/rejuvenation/alpha"]
            said = f"rejuvenated: alpha {alpha:g}, relative drift from the base {before:.3f} -> {after:.3f}"
            share = data.get("training/rejuvenation/reset_share")
            return said if share is None else f"{said}, {share:.1%} of the neurons reset"
    return ""


def proportional_memory(process: psutil.Process) -> int:
    """Bytes of a process and all its descendants, shared pages counted once (PSS; RSS where there is none)."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            memory = member.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


class Console:
    """One line that is rewritten on a terminal; elsewhere a new line each time the text changes."""

    def __init__(self, arm: str, lines: bool) -> None:
        self.prefix, self.last, self.rewrite = f"{arm:<12} ", "", sys.stdout.isatty() and not lines
        self.kept: list[str] = []

    def show(self, text: str) -> None:
        if text == self.last:
            return
        self.last = text
        if self.rewrite:
            print(f"\r\033[K{self.prefix}{text}"[: shutil.get_terminal_size().columns + 4], end="", flush=True)
        else:
            print(self.prefix + text, flush=True)

    def keep(self, text: str) -> None:
        """A line that stays, printed once."""
        if not text or text in self.kept:
            return
        self.kept.append(text)
        print(f"\r\033[K{self.prefix}{text}" if self.rewrite else self.prefix + text, flush=True)


def set_aside(directory: Path, tensorboard: Path) -> None:
    """Move what an earlier run of this arm left to ``previous/<arm>-<n>``: verl would write into the same files."""
    if not directory.exists():
        return
    earlier = directory.parent / "previous"
    earlier.mkdir(exist_ok=True)
    count = sum(1 for _ in earlier.glob(f"{directory.name}-*"))
    target = directory.rename(earlier / f"{directory.name}-{count + 1}")
    if tensorboard.exists():
        tensorboard.rename(target / "tensorboard")


def watch(arm: str, steps: int, directory: Path, command: list[str], *, lines: bool = False, poll: float = 0.5) -> int:
    """Run the command and follow it, in a line that is rewritten or in ``lines``. Returns its exit code."""
    set_aside(directory, directory.parent / "tensorboard" / arm)
    directory.mkdir(parents=True)
    log, metrics, console = directory / "log.txt", directory / "metrics.jsonl", Console(arm, lines)
    console.keep(f"log: {log}")
    started = time.monotonic()
    peak, next_sample = 0, 0.0
    with log.open("w") as sink:
        # The parent ignores nothing: Ctrl-C reaches both, and verl shuts Ray down before it ends.
        child = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        process = psutil.Process(child.pid)
        try:
            while child.poll() is None:
                seconds = time.monotonic() - started
                records = read_records(metrics)
                console.keep(describe_transform(records))
                if line := describe(records, steps):
                    console.show(line)
                else:
                    # A new text every 15 s off a terminal, every second on one.
                    shown = int(seconds) if console.rewrite else int(seconds) // 15 * 15
                    console.show(f"verl starts and measures the start checkpoint (60 to 100 s): {shown} s")
                if seconds >= next_sample:
                    peak, next_sample = max(peak, proportional_memory(process)), seconds + 5
                time.sleep(poll)
        except psutil.NoSuchProcess:
            child.wait()
        except KeyboardInterrupt:
            # verl got it too and shuts Ray down; it is not given forever.
            try:
                child.wait(timeout=60)
            except subprocess.TimeoutExpired:
                child.kill()
            return 130
    seconds, records = time.monotonic() - started, read_records(metrics)
    # A signal's number is negative here; the shell adds it to 128.
    code = child.returncode if child.returncode >= 0 else 128 - child.returncode
    if code == 0 and (not records or records[-1]["step"] < steps):
        print(f"{arm}: verl ended without finishing step {steps}", file=sys.stderr)
        code = 1
    summary = {
        "arm": arm,
        "exit_code": code,
        "seconds": round(seconds, 1),
        "peak_memory_bytes": peak,
        "command": command,
        "settings": {name: os.environ.get(name, "") for name in ("SEED", "STEPS", "ALPHA", "MODELS")},
    }
    (directory / "run.json").write_text(json.dumps(summary, indent=2) + "\n")
    if code != 0:
        tail = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        print(f"\n{arm} failed with exit code {code}. The last {LAST_LINES} lines of {log}:", file=sys.stderr)
        print("\n".join("  | " + line for line in tail), file=sys.stderr)
    else:
        console.keep(f"{describe(records, steps).rsplit('  ', 1)[0]}  done in {seconds:.0f} s")
    return code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--lines", action="store_true", help="never rewrite a line: others write to this terminal too")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    sys.exit(watch(args.arm, args.steps, args.dir, args.command, lines=args.lines))


if __name__ == "__main__":
    main()
