# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What monitors cost in a step: python tests/benchmarks/monitor_cost.py [cuda] [hidden] [vocabulary] [steps] [world]

verl's own FSDP2 engine trains a random Qwen2, on a CPU, or with ``cuda`` on all GPUs of this machine: there in bf16,
with a model and a batch that fill one. A step is what the actor does in RL: log-probabilities of the batch, the update,
and the stream of weights to a rollout that takes no time. Each step is done in turn, in one process: as it is, and with
all monitors of every step (core); one step in 7 also with each of these alone, and with a look at a probe set of 16
sequences, of which a run has one in 10 steps. The full set is the core and a tenth of that look.

What is printed: milliseconds that each adds to the same step as it is (mean and median over steps), their share of the
step and that of CPU time (of the slowest rank; with the standard error of the mean), and the peak of this process's
memory or of the GPU's. A step of RL has rollouts too, and shares of it are smaller: so how long a step must be for a
share of 2 %, for the full set of 5 %. What monitors keep between steps, 30 bytes a sampled weight, is in all peaks.

On a GPU flash-attn must be installed, of which verl takes the fused cross-entropy: without it verl goes through bf16
logits token by token in Python, and a step takes minutes.
"""

import math
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from worker_load import save

CORE = ("tokens", "gradients", "weights")
KINDS = ("none", "core", *CORE, "look")
DETAIL = 7
"""One step in so many is done with every kind, the others as they are and with the core."""
EVERY = 10
"""Steps between two looks at the probe set, by default."""
_WRAPPED = ("optimizer_step", "prepare_model_outputs", "get_per_tensor_param")


@dataclass(frozen=True)
class Load:
    """What is trained."""

    hidden: int
    vocabulary: int
    layers: int
    prompt: int
    response: int
    batch: int
    micro: int
    """Sequences that a rank takes at a time."""
    dtype: str
    """Of the forward; weights and optimizer are float32."""
    attention: str


@dataclass(frozen=True)
class Cost:
    """Of one step on a rank: seconds, CPU seconds and peak MiB."""

    step: int
    kind: str
    seconds: float
    cpu: float
    peak: float


LOADS = {
    "cpu": Load(256, 8000, 8, 32, 96, 16, 2, "fp32", "eager"),
    "cuda": Load(2048, 151_936, 24, 256, 768, 64, 8, "bf16", "sdpa"),
}


def hubs_of(engine: Any, path: Path, examples: list, device: str) -> dict[str, tuple[dict[str, Any], Any]]:
    """By kind: attributes of the engine's instance, and the hub that reads what they see."""
    from rejuv_plugin.config.monitors import MonitorProbeConfig, MonitorsConfig
    from rejuv_plugin.integrations.verl.monitors import gradients, tokens
    from rejuv_plugin.integrations.verl.monitors.hub import Hub
    from rejuv_plugin.integrations.verl.monitors.probe_pass import probe_monitors
    from rejuv_plugin.integrations.verl.monitors.stream import StreamedWeights

    settings = MonitorsConfig(probe_set=MonitorProbeConfig(every=1))
    makers = {
        ("tokens",): lambda: [tokens.attach(engine)],
        ("gradients",): lambda: [gradients.attach(engine)],
        ("weights",): lambda: [StreamedWeights(engine, settings.sample, path)],
        settings.on_probe_set: lambda: probe_monitors(engine, examples, settings),
    }
    names = {kind: [(kind,)] for kind in CORE} | {"core": [(name,) for name in CORE], "look": [settings.on_probe_set]}
    plain = {name: getattr(engine, name) for name in _WRAPPED}
    found: dict[str, tuple[dict[str, Any], Any]] = {"none": (plain, None)}
    for kind in KINDS[1:]:
        vars(engine).update(plain)
        hub = Hub({key: makers[key] for key in names[kind]}, device)
        found[kind] = {name: getattr(engine, name) for name in _WRAPPED}, hub
    return found


def train(device: torch.device, path: Path, load: Load, steps: int) -> list[Cost]:
    """On a rank: what each step cost; as many on every rank, in the same order."""
    import rollouts
    from fsdp_cpu import engines

    from rejuv_plugin.probe.dialogue import Example

    model = {"override_config": {"attn_implementation": load.attention}}
    engine = engines.build(path, "fsdp2", lr=1e-6, dtype=load.dtype, model=model)
    engine.initialize()
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, load.vocabulary, (load.batch, load.prompt + load.response), generator=generator)
    chosen = [(row[: load.prompt], row[load.prompt :], torch.ones(load.response, dtype=torch.long)) for row in ids]
    examples = [Example(row.tolist(), tuple(range(load.prompt, len(row)))) for row in ids[:16]]
    mine = rollouts.shard(engine, chosen)
    hubs = hubs_of(engine, path, examples, device.type)

    def batch() -> Any:
        return rollouts.batch(mine, 1.0, micro_batch_size_per_gpu=load.micro)

    def cost(step: int, kind: str) -> Cost:
        attributes, hub = hubs[kind]
        vars(engine).update(attributes)
        _forget_peak(device)
        wall, cpu = time.perf_counter(), time.process_time()
        with engine.eval_mode():
            engine.infer_batch(batch(), loss_function=rollouts.loss)
        with engine.train_mode():
            engine.train_batch(batch(), loss_function=rollouts.loss)
        for _ in engine.get_per_tensor_param()[0]:
            pass
        if hub:
            report = hub.report(step)
            assert not report.failed, report.failed
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return Cost(step, kind, time.perf_counter() - wall, time.process_time() - cpu, _peak(device))

    for kind in (*KINDS, *KINDS[:2]):
        cost(-1, kind)  # for compiling, and for what monitors read once
    costs = []
    for step in range(steps):
        latest = [cost(step, kind) for kind in (KINDS if step % DETAIL == 0 else KINDS[:2])]
        print(f"step {step + 1}:", *(f"{c.kind} {c.seconds:.3f} s" for c in latest), file=sys.stderr, flush=True)
        costs += latest
    return costs


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: torch.device) -> float:
    """MiB since the last reset, of tensors on the GPU or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) / 1024


def measure(device: str, path: Path, load: Load, steps: int, world: int) -> list[list[Cost]]:
    """`train` on all ranks."""
    if device == "cuda":
        import gpu_ranks

        return gpu_ranks.run(train, path, load, steps)
    from rank_server import Server

    server = Server("fsdp_cpu.engines", VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_PLUGINS="rejuvenation_cpu")
    try:
        return server.run(train, world, torch.device("cpu"), path, load, steps, seconds=3600)
    finally:
        server.close()


def main(device: str, hidden: int = 0, vocabulary: int = 0, steps: int = 20, world: int = 1) -> None:
    load = LOADS[device]
    load = replace(load, hidden=hidden or load.hidden, vocabulary=vocabulary or load.vocabulary)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        save(path, load.vocabulary, load.hidden, seed=0, layers=load.layers, device=device)
        torch.cuda.empty_cache()
        found = measure(device, path, load, steps, world)
    # A step takes as long as its slowest rank.
    costs = [
        Cost(cost[0].step, cost[0].kind, *(max(getattr(c, key) for c in cost) for key in ("seconds", "cpu", "peak")))
        for cost in zip(*found, strict=True)
    ]
    plain = {cost.step: cost for cost in costs if cost.kind == "none"}
    whole = {key: statistics.mean(getattr(c, key) for c in plain.values()) for key in ("seconds", "cpu")}
    peaks = {kind: max(cost.peak for cost in costs if cost.kind == kind) for kind in KINDS}
    print(f"{torch.cuda.get_device_name() if device == 'cuda' else 'CPU'}, {len(found)} ranks, {load}, {steps} steps")
    print(f"a step as it is: {whole['seconds']:.3f} s, peak {peaks['none']:.0f} MiB")
    more = {kind: {key: added(costs, plain, kind, key) for key in whole} for kind in KINDS[1:]}
    # Other steps than the core's: the errors are independent.
    more["full set"] = {
        key: (
            more["core"][key][0] + more["look"][key][0] / EVERY,
            math.hypot(more["core"][key][1], more["look"][key][1] / EVERY),
            more["core"][key][2] + more["look"][key][2] / EVERY,
        )
        for key in whole
    }
    for kind, by_key in more.items():
        peak = peaks[kind if kind in peaks else "look"] / peaks["none"] - 1
        milliseconds, _, median = (1000 * number for number in by_key["seconds"])
        wall, cpu = (f"{n[0] / whole[key]:+.2%} (± {n[1] / whole[key]:.2%})" for key, n in by_key.items())
        aim = 5 if kind == "full set" else 2
        print(
            f"{kind:9}: {milliseconds:+8.1f} ms (median {median:+.1f}), wall {wall}, CPU {cpu}, peak {peak:+.2%}; "
            f"{aim} % of a step of {max(0.0, milliseconds) / aim / 10:.2f} s"
        )


def added(costs: list[Cost], plain: dict[int, Cost], kind: str, key: str) -> tuple[float, float, float]:
    """What ``kind`` adds to ``key`` of the same step as it is: mean, its standard error, and median."""
    more = [getattr(cost, key) - getattr(plain[cost.step], key) for cost in costs if cost.kind == kind]
    error = statistics.stdev(more) / len(more) ** 0.5 if len(more) > 1 else math.nan
    return statistics.mean(more), error, statistics.median(more)


if __name__ == "__main__":
    import monitor_cost  # under the name by which ranks find its functions

    arguments = sys.argv[1:]
    kind = arguments.pop(0) if arguments[:1] == ["cuda"] else "cpu"
    monitor_cost.main(kind, *map(int, arguments))
