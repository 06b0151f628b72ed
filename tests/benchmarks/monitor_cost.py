# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What monitors cost in a step: python tests/benchmarks/monitor_cost.py [cuda] [hidden] [vocabulary] [steps] [world]

verl's own FSDP2 engine trains a random Qwen2, on a CPU, or with ``cuda`` on all GPUs of this machine: there in bf16,
with a model and a batch that fill one. A step is what the actor does in RL: log-probabilities of the batch, the update,
and the stream of weights to a rollout that takes no time. Each step is done in turn, in one process: as it is, with
each of the monitors of every step alone, with all of them (core), and with a look at a probe set of 16 sequences, of
which a run has one in 10 steps; the full set is the core and a tenth of that look. On one H200 a step of all six takes
half a minute: 5 steps, and 2 before them that do not count, are done in under 5 minutes.

What is printed: milliseconds that each adds to a step, their share of the step and that of CPU time (of the slowest
rank; with the standard error of the mean over steps), and the peak of this process's memory or of the GPU's. A step of
RL has rollouts too, and shares of it are smaller: so how long a step must be for a share of 2 %, for the full set of
5 %. What monitors keep between steps, 30 bytes a sampled weight, is in all peaks.

On a GPU flash-attn must be installed, of which verl takes the fused cross-entropy: without it verl goes through bf16
logits token by token in Python, and a step takes minutes.
"""

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
KINDS = ("none", *CORE, "core", "look")
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


def train(device: torch.device, path: Path, load: Load, steps: int) -> dict[str, dict[str, list[float]]]:
    """On a rank: seconds, CPU seconds and peak MiB of each step by kind."""
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

    cost: dict[str, dict[str, list[float]]] = {kind: {"seconds": [], "cpu": [], "peak": []} for kind in KINDS}
    for step in range(steps + 2):
        for kind in KINDS:
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
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if step > 1:  # the first are for compiling, and for what monitors read once
                for key, value in (("seconds", wall), ("cpu", cpu), ("peak", _peak(device))):
                    cost[kind][key].append(value)
        if step > 1:
            latest = ", ".join(f"{kind} {values['seconds'][-1]:.3f} s" for kind, values in cost.items())
            print(f"step {step - 1}: {latest}", file=sys.stderr, flush=True)
    return cost


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


def measure(device: str, path: Path, load: Load, steps: int, world: int) -> list[dict[str, dict[str, list[float]]]]:
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
    costs = {
        kind: {key: [max(rank) for rank in zip(*(r[kind][key] for r in found), strict=True)] for key in found[0][kind]}
        for kind in KINDS
    }
    plain = costs["none"]
    print(f"{torch.cuda.get_device_name() if device == 'cuda' else 'CPU'}, {len(found)} ranks, {load}, {steps} steps")
    print(f"a step as it is: {statistics.mean(plain['seconds']):.3f} s, peak {max(plain['peak']):.0f} MiB")
    more = {
        kind: {key: [a - b for a, b in zip(costs[kind][key], plain[key], strict=True)] for key in ("seconds", "cpu")}
        for kind in KINDS[1:]
    }
    more["full set"] = {
        key: [core + look / EVERY for core, look in zip(more["core"][key], more["look"][key], strict=True)]
        for key in ("seconds", "cpu")
    }
    for kind, added in more.items():
        of = kind if kind in costs else "look"
        peak = max(costs[of]["peak"]) / max(plain["peak"]) - 1
        milliseconds, aim = 1000 * statistics.mean(added["seconds"]), 5 if kind == "full set" else 2
        wall, cpu = (_share(added[key], plain[key]) for key in ("seconds", "cpu"))
        print(
            f"{kind:9}: {milliseconds:+8.1f} ms, wall {wall}, CPU {cpu}, peak {peak:+.2%}; "
            f"{aim} % of a step of {max(0.0, milliseconds) / aim / 10:.2f} s"
        )


def _share(more: list[float], of: list[float]) -> str:
    """Of a step, and its standard error."""
    mean = statistics.mean(of)
    return f"{statistics.mean(more) / mean:+.2%} (± {statistics.stdev(more) / len(more) ** 0.5 / mean:.2%})"


if __name__ == "__main__":
    import monitor_cost  # under the name by which ranks find its functions

    arguments = sys.argv[1:]
    kind = arguments.pop(0) if arguments[:1] == ["cuda"] else "cpu"
    monitor_cost.main(kind, *map(int, arguments))
