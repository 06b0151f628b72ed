# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What worker mode costs when an engine loads: python tests/benchmarks/worker_load.py [vocabulary] [hidden] [repeats]

verl's own engines build and load a random Qwen2, as they are and with rejuvenated weights (fusion and reset), in turn,
each time on new forked ranks. Time: of building the module and loading, wall time of the slowest rank and CPU time of
all; the median of the paired ratios. What a process needs once for the compiled kernel comes before that, and is told
apart. Memory: the peak of a rank's anonymous memory meanwhile, over its start; the largest difference of any rank.
Pages of the checkpoints' files are not counted: they are the kernel's to drop.
"""

import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1]))

from megatron_cpu.topology import Topology
from rank_server import Server
from tiny import tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

from rejuv_plugin.checkpoint import Plan, plan_fusion, plan_reset
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.loading import Values
from rejuv_plugin.neurons.modules import modules_of
from rejuv_plugin.neurons.reset_set import Chosen, ResetSet

MIB = 2**20


@dataclass
class Cost:
    """Of one rank."""

    seconds: float
    cpu_seconds: float
    peak: float
    """MiB."""
    first: float
    """CPU seconds until the process had its first fused tensor."""


FSDP = [("fsdp", 2), ("fsdp2", 2)]
MEGATRON = [Topology(), Topology(tp=2), Topology(pp=2), Topology(tp=2, vanilla=True)]


def save(path: Path, vocabulary: int, hidden: int, seed: int, *, layers: int = 8, device: str = "cpu") -> None:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        tie_word_embeddings=False,
    )
    with torch.device(device):
        model = Qwen2ForCausalLM(config)
    model.bfloat16().save_pretrained(path)
    tokenizer().save_pretrained(path)


def plan_of(pair: Path) -> Plan:
    plan = plan_fusion(str(pair / "base"), str(pair / "sft"), FusionConfig(alpha=0.4))
    modules = modules_of(plan.sft.config, plan.sft.shapes, "--sft")
    chosen = {m.name: Chosen(m.kind, m.count, tuple(range(0, m.count, 20))) for m in modules}
    return plan_reset(plan, ResetSet("qwen2", chosen), 0.8, "--reset-set")


def load_fsdp(pair: Path, strategy: str, rejuvenated: bool) -> Cost:
    """On a rank."""
    from fsdp_cpu import engines

    return _measured(engines.build(pair / "sft", strategy), pair, rejuvenated)


def load_megatron(pair: Path, topology: Topology, rejuvenated: bool) -> Cost:
    """On a rank."""
    from megatron_cpu import engines

    return _measured(engines.build(pair / "sft", topology), pair, rejuvenated)


def _measured(engine: Any, pair: Path, rejuvenated: bool) -> Cost:
    """What it costs to build the engine's module and to load it."""
    from rejuv_plugin.integrations.verl.worker_mode.engines import load_rejuvenated

    began = time.process_time()
    if rejuvenated:
        plan = plan_of(pair)
        with Values(plan) as values:
            values.tensor("model.norm.weight")
        load_rejuvenated(engine, plan, f"on rank {dist.get_rank()}")
    first = time.process_time() - began
    name = "_build_megatron_module" if hasattr(engine, "_build_megatron_module") else "_build_module"
    build = getattr(engine, name)
    costs: list[Cost] = []

    def observed() -> Any:
        dist.barrier()
        with _Peak() as peak:
            began, cpu = time.monotonic(), time.process_time()
            module = build()
            costs.append(Cost(time.monotonic() - began, time.process_time() - cpu, peak.bytes / MIB, first))
        return module

    setattr(engine, name, observed)
    engine.initialize()
    return costs[0]


class _Peak:
    """How far this process's anonymous memory rose since the start, seen every 2 ms."""

    def __enter__(self) -> "_Peak":
        self._start = self._highest = _anonymous()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def bytes(self) -> int:
        return self._highest - self._start

    def _watch(self) -> None:
        while not self._ended.wait(0.002):
            self._highest = max(self._highest, _anonymous())


def _anonymous() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def compare(name: str, server: Server, function: Any, world: int, pair: Path, engine: Any, repeats: int) -> None:
    plain: list[list[Cost]] = []
    ours: list[list[Cost]] = []
    for _ in range(repeats):
        plain.append(server.run(function, world, pair, engine, False))
        ours.append(server.run(function, world, pair, engine, True))

    def wall(ranks: list[Cost]) -> float:
        return max(rank.seconds for rank in ranks)

    def cpu(ranks: list[Cost]) -> float:
        return sum(rank.cpu_seconds for rank in ranks)

    def compared(of: Any) -> str:
        ratios = [of(with_it) / of(without) for without, with_it in zip(plain, ours, strict=True)]
        middle, without = statistics.median(ratios), statistics.median(map(of, plain))
        return f"{without:.2f} | {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"

    # Rank by rank, as they differ; the median of the repeats, as the allocator gives memory back when it likes.
    peaks = [[statistics.median(run[rank].peak for run in runs) for rank in range(world)] for runs in (plain, ours)]
    more = max(with_it - without for without, with_it in zip(*peaks, strict=True))
    first = statistics.median(rank.first for run in ours for rank in run)
    row = [name, compared(wall), compared(cpu), *(f"{max(peak):.0f}" for peak in peaks), f"{more:+.0f}", f"{first:.1f}"]
    print(f"| {' | '.join(row)} |", flush=True)


def main(vocabulary: int = 150_000, hidden: int = 512, repeats: int = 5) -> None:
    with tempfile.TemporaryDirectory() as directory:
        pair = Path(directory)
        for seed, side in enumerate(("base", "sft")):
            save(pair / side, vocabulary, hidden, seed)
        size = sum(file.stat().st_size for file in (pair / "sft").glob("*.safetensors")) / MIB
        print(f"checkpoint {size:.0f} MiB, largest tensor {2 * vocabulary * hidden / MIB:.0f} MiB, {repeats} repeats\n")
        print("| engine | plain, wall s | ratio | plain, CPU s | ratio | plain, MiB | rejuvenated, MiB | more | once |")
        print("|---|---|---|---|---|---|---|---|---|")
        fsdp = Server("fsdp_cpu.engines", VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_PLUGINS="rejuvenation_cpu")
        for strategy, world in FSDP:
            compare(f"{strategy}, {world} ranks", fsdp, load_fsdp, world, pair, strategy, repeats)
        fsdp.close()
        megatron = Server("megatron_cpu.engines", path=str(Path(sys.prefix, "beside", "megatron")))
        for topology in MEGATRON:
            compare(f"megatron {topology}", megatron, load_megatron, topology.world, pair, topology, repeats)
        megatron.close()


if __name__ == "__main__":
    import worker_load  # under the name by which ranks find its functions

    worker_load.main(*map(int, sys.argv[1:]))
