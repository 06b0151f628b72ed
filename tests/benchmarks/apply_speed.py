# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How fast `rejuv apply` is and how much memory it takes, against `cp` and against mergekit, on the same files.

    python tests/benchmarks/apply_speed.py DIRECTORY [--mergekit-python PYTHON] [--repeats 5] [--alpha 0.5] [--sparse]

Makes two checkpoints of 1.7 GB (bfloat16, 4 shards, random weights) below DIRECTORY, once, and 1.7 GB of output at a
time; --sparse adds two of 1.7 GB and two of 17 GB that are holes, and writes 17 GB. The contestants take turns, so that
whatever else the machine does meets all of them. Everything is in the page cache. CPU time is user and system time of
the process and its children, "without imports" less that of a process that only imports what `rejuv apply` imports.
Ours also writes its output to the disk before it ends; `cp` and mergekit leave that to the system.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

HIDDEN, FEED_FORWARD, VOCABULARY, KEY_VALUE, SHARDS = 1536, 8960, 32000, 256, 4
IMPORTS = "import rejuv_plugin.checkpoint, rejuv_plugin.ops.kernel, rejuv_plugin.cli as c; c.main(['--version'])"
CP = "cp of one, reading the other"
APPLY = "from rejuv_plugin.cli import main; main()"
# Its fastest way, arithmetic in bfloat16, which rounds wrongly where ours does not.
MERGEKIT = """
merge_method: linear
models:
  - {{model: {base}, parameters: {{weight: {beta}}}}}
  - {{model: {sft}, parameters: {{weight: {alpha}}}}}
dtype: bfloat16
"""
MERGEKIT_ALWAYS = ["--no-copy-tokenizer", "--no-write-model-card", "--quiet", "--out-shard-size", "225M"]
# The best for wall and for CPU time of those tried: with and without --lazy-unpickle, one and two threads, written
# while computing or not, output shards of 50M, 225M (as ours) and 5B parameters. The other flags are for GPUs.
MERGEKIT_FLAGS = {
    "mergekit, 2 threads": "--lazy-unpickle --num-threads 2 --async-write --write-threads 2",
    "mergekit, 1 thread": "--num-threads 1 --async-write --write-threads 1",
}


@dataclass
class Run:
    wall: float
    cpu: float
    mib: float


def shapes(layers: int) -> dict[str, list[int]]:
    found = {"model.embed_tokens.weight": [VOCABULARY, HIDDEN]}
    for i in range(layers):
        at = f"model.layers.{i}"
        found |= {
            f"{at}.input_layernorm.weight": [HIDDEN],
            f"{at}.mlp.down_proj.weight": [HIDDEN, FEED_FORWARD],
            f"{at}.mlp.gate_proj.weight": [FEED_FORWARD, HIDDEN],
            f"{at}.mlp.up_proj.weight": [FEED_FORWARD, HIDDEN],
            f"{at}.post_attention_layernorm.weight": [HIDDEN],
            f"{at}.self_attn.k_proj.bias": [KEY_VALUE],
            f"{at}.self_attn.k_proj.weight": [KEY_VALUE, HIDDEN],
            f"{at}.self_attn.o_proj.weight": [HIDDEN, HIDDEN],
            f"{at}.self_attn.q_proj.bias": [HIDDEN],
            f"{at}.self_attn.q_proj.weight": [HIDDEN, HIDDEN],
            f"{at}.self_attn.v_proj.bias": [KEY_VALUE],
            f"{at}.self_attn.v_proj.weight": [KEY_VALUE, HIDDEN],
        }
    return found | {"model.norm.weight": [HIDDEN], "lm_head.weight": [VOCABULARY, HIDDEN]}


def make(directory: Path, layers: int, like: Path | None = None, sparse: bool = False) -> Path:
    """A checkpoint with random weights, near those of ``like``; or one of holes, but for its first MiB.

    In a process of its own: the peak memory of a child counts what its parent had when it started it.
    """
    if not (directory / "config.json").exists():
        print(f"making {directory}", file=sys.stderr)
        child = multiprocessing.get_context("spawn").Process(target=fill, args=(directory, layers, like, sparse))
        child.start()
        child.join()
    return directory


def fill(directory: Path, layers: int, like: Path | None, sparse: bool) -> None:
    import torch

    directory.mkdir(parents=True)
    tensors = list(shapes(layers).items())
    share, weight_map = -(-len(tensors) // SHARDS), {}
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        header, position = {"__metadata__": {"format": "pt"}}, 0
        for tensor, shape in tensors[shard * share : (shard + 1) * share]:
            size = 2 * torch.Size(shape).numel()
            header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, position + size]}
            position += size
            weight_map[tensor] = name
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (directory / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            start = file.tell()
            file.truncate(start + position)
            other = (like / name).open("rb") if like else None
            while (done := file.tell() - start) < (min(position, 1 << 20) if sparse else position):
                values = torch.randn(min(1 << 22, (position - done) // 2)) * (0.001 if other else 0.02)
                if other:
                    other.seek(start + done)
                    near = bytearray(other.read(2 * len(values)))
                    values += torch.frombuffer(near, dtype=torch.bfloat16).float()
                file.write(values.bfloat16().view(torch.int16).numpy().tobytes())
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": layers,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (directory / "config.json").write_text(json.dumps(config, indent=2))


def measure(command: list[str], output: Path) -> Run:
    """Run a command that makes ``output``, which is removed before and after."""
    shutil.rmtree(output, ignore_errors=True)
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    os.sync()
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    text = process.stdout.read() if process.stdout else b""
    # wait4 instead of RUSAGE_CHILDREN for memory: that is the largest of all children so far.
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{text.decode(errors='replace')[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    shutil.rmtree(output, ignore_errors=True)
    return Run(wall, cpu, usage.ru_maxrss / 1024)


def report(name: str, runs: list[Run], imports: float = 0.0) -> tuple[float, float]:
    walls, cpus = [run.wall for run in runs], [run.cpu - imports for run in runs]
    print(
        f"{name:34} wall {median(walls):7.2f} s ({min(walls):.2f} to {max(walls):.2f})   "
        f"CPU {median(cpus):7.2f} s ({min(cpus):.2f} to {max(cpus):.2f})   peak {max(run.mib for run in runs):6.0f} MiB"
    )
    return median(walls), median(cpus)


def ours(base: Path, sft: Path, output: Path, workers: int, alpha: float) -> list[str]:
    options = ["--base", str(base), "--sft", str(sft), "--output", str(output), "--alpha", str(alpha)]
    return [sys.executable, "-c", APPLY, "apply", *options, "--workers", str(workers)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--mergekit-python", help="python of an environment with mergekit 0.1.5")
    parser.add_argument("--repeats", type=int, default=5)
    # Many sums of bfloat16 are ties at 0.5, and few at 0.4, so that they take two ways through the kernel.
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--sparse", action="store_true", help="peak memory for 10 times larger files, too")
    arguments = parser.parse_args()
    root, output = arguments.directory, arguments.directory / "output"
    base = make(root / "base", 16)
    sft = make(root / "sft", 16, like=base)
    files = [str(path) for path in sorted(sft.glob("*.safetensors"))]
    second = " ".join(str(path) for path in sorted(base.glob("*.safetensors")))
    read = f"for f in {second}; do dd if=$f of=/dev/null bs=1M 2>&1; done"
    copy = ["bash", "-c", f"mkdir {output} && cp {' '.join(files)} {output} && {read}"]
    flushed = f"{copy[2]} && sync {output}/*"
    contestants = {
        "imports of ours": [sys.executable, "-c", IMPORTS],
        "ours, 1 worker": ours(base, sft, output, 1, arguments.alpha),
        "ours, 2 workers": ours(base, sft, output, 2, arguments.alpha),
        CP: copy,
        "the same, flushed to the disk": [*copy[:2], flushed],
    }
    if arguments.mergekit_python:
        recipe = root / "mergekit.yml"
        weights = {"alpha": arguments.alpha, "beta": 1 - arguments.alpha}
        recipe.write_text(MERGEKIT.format(base=base.resolve(), sft=sft.resolve(), **weights))
        mergekit = str(Path(arguments.mergekit_python).parent / "mergekit-yaml")
        for name, flags in MERGEKIT_FLAGS.items():
            command = [arguments.mergekit_python, mergekit, str(recipe), str(output), *MERGEKIT_ALWAYS, *flags.split()]
            contestants[name] = command
    else:
        print("mergekit: skipped, no --mergekit-python")
    # A first run of each, not counted, compiles the kernel and brings the files into the page cache.
    for command in contestants.values():
        measure(command, output)
    runs: dict[str, list[Run]] = {name: [] for name in contestants}
    for _ in range(arguments.repeats):
        for name, command in contestants.items():
            runs[name].append(measure(command, output))
    imports = median(run.cpu for run in runs["imports of ours"])
    results = {name: report(name, of_one) for name, of_one in runs.items()}
    for name in ("ours, 1 worker", "ours, 2 workers"):
        alone = report(f"{name}, without imports", runs[name], imports)[1]
        ratios = [(a.cpu - imports) / b.cpu for a, b in zip(runs[name], runs[CP], strict=True)]
        print(f"  CPU against cp: {alone / results[CP][1]:.2f} times (pairs {min(ratios):.2f} to {max(ratios):.2f})")
        theirs = [results[flags] for flags in MERGEKIT_FLAGS if flags in results]
        if theirs:
            wall, cpu = (min(run[i] for run in theirs) / results[name][i] for i in range(2))
            print(f"  mergekit takes {wall:.1f} times the wall time and {cpu:.1f} times the CPU time, imports included")
    if arguments.sparse:
        for factor in (1, 10):
            holes = make(root / f"holes-base-{factor}", 16 * factor, sparse=True)
            others = make(root / f"holes-sft-{factor}", 16 * factor, sparse=True)
            report(
                f"ours, files of holes, {factor:2} times",
                [measure(ours(holes, others, output, 2, arguments.alpha), output)],
            )


if __name__ == "__main__":
    main()
