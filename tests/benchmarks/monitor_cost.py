# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What monitors cost in a step: python tests/benchmarks/monitor_cost.py [hidden] [vocabulary] [steps] [world]

verl's own FSDP2 engine trains a random Qwen2 on a CPU. A step is what the actor does in RL: log-probabilities of the
batch, the update, and the stream of weights to a rollout that takes no time. No rollouts, so shares of a real step are
smaller. Each step is done three times in turn, as it is, with the core monitors and with all of them at their default
cadence (a probe set of 16 sequences every 10 steps), in one process: ratios of total wall and CPU time of the slowest
rank, and the peak of anonymous memory in each kind.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from rank_server import Server
from worker_load import save

KINDS = ("none", "core", "all")
PROMPT, RESPONSE, BATCH = 32, 96, 16
_WRAPPED = ("optimizer_step", "prepare_model_outputs", "get_per_tensor_param")


def hubs_of(engine: Any, path: Path, examples: list) -> dict[str, tuple[dict[str, Any], Any]]:
    """By kind: attributes of the engine's instance, and the hub that reads what they see."""
    from rejuv_plugin.config import MonitorsConfig
    from rejuv_plugin.integrations.verl.monitors import gradients, tokens
    from rejuv_plugin.integrations.verl.monitors.hub import Hub
    from rejuv_plugin.integrations.verl.monitors.probe_pass import probe_monitors
    from rejuv_plugin.integrations.verl.monitors.stream import StreamedWeights

    plain = {name: getattr(engine, name) for name in _WRAPPED}
    found: dict[str, tuple[dict[str, Any], Any]] = {"none": (plain, None)}
    for kind in KINDS[1:]:
        vars(engine).update(plain)
        makers = {
            ("probe", "neurons", "ranks", "attention"): lambda: probe_monitors(engine, examples, MonitorsConfig())
        }
        core = {
            ("tokens",): lambda: [tokens.attach(engine)],
            ("gradients",): lambda: [gradients.attach(engine)],
            ("weights",): lambda: [StreamedWeights(engine, MonitorsConfig().sample, path)],
        }
        hub = Hub(core if kind == "core" else makers | core, "cpu")
        found[kind] = {name: getattr(engine, name) for name in _WRAPPED}, hub
    return found


def train(path: Path, steps: int) -> dict[str, dict[str, float]]:
    """On a rank: seconds, CPU seconds and peak MiB by kind."""
    import rollouts
    from fsdp_cpu import engines

    from rejuv_plugin.probe.dialogue import Example

    engine = engines.build(path, "fsdp2", lr=1e-6)
    engine.initialize()
    vocabulary = engine.model_config.hf_config.vocab_size
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, vocabulary, (BATCH, PROMPT + RESPONSE), generator=generator)
    chosen = [(row[:PROMPT], row[PROMPT:], torch.ones(RESPONSE, dtype=torch.long)) for row in ids]
    examples = [Example(row.tolist(), tuple(range(PROMPT, PROMPT + RESPONSE))) for row in ids]
    mine = rollouts.shard(engine, chosen)
    hubs = hubs_of(engine, path, examples)
    cost = {kind: {"seconds": 0.0, "cpu": 0.0, "peak": 0.0} for kind in KINDS}
    for step in range(steps + 2):
        for kind in KINDS:
            attributes, hub = hubs[kind]
            vars(engine).update(attributes)
            Path("/proc/self/clear_refs").write_text("5")
            wall, cpu = time.perf_counter(), time.process_time()
            with engine.eval_mode():
                engine.infer_batch(rollouts.batch(mine, 1.0), loss_function=rollouts.loss)
            with engine.train_mode():
                engine.train_batch(rollouts.batch(mine, 1.0), loss_function=rollouts.loss)
            for _ in engine.get_per_tensor_param()[0]:
                pass
            if hub:
                report = hub.report(step)
                assert not report.failed, report.failed
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if step > 1:  # the first are for compiling, and for what monitors read once
                cost[kind]["seconds"] += wall
                cost[kind]["cpu"] += cpu
                cost[kind]["peak"] = max(cost[kind]["peak"], _peak())
    return cost


def _peak() -> float:
    """MiB, of this process since the last reset."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) / 1024


def main(hidden: int = 256, vocabulary: int = 8000, steps: int = 20, world: int = 1) -> None:
    server = Server("fsdp_cpu.engines", VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_PLUGINS="rejuvenation_cpu")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        save(path, vocabulary, hidden, seed=0)
        found = server.run(train, world, path, steps, seconds=3600)
    server.close()
    costs = {kind: {key: max(rank[kind][key] for rank in found) for key in found[0][kind]} for kind in KINDS}
    plain = costs["none"]
    print(
        f"{steps} steps of {BATCH} x {PROMPT + RESPONSE} tokens, hidden {hidden}, vocabulary {vocabulary}, "
        f"world {world}"
    )
    print(f"a step as it is: {plain['seconds'] / steps:.2f} s, peak {plain['peak']:.0f} MiB")
    for kind in KINDS[1:]:
        more = {key: costs[kind][key] / plain[key] - 1 for key in plain}
        print(f"{kind:5} monitors: wall {more['seconds']:+.2%}, CPU {more['cpu']:+.2%}, peak {more['peak']:+.2%}")


if __name__ == "__main__":
    import monitor_cost  # under the name by which ranks find its functions

    monitor_cost.main(*map(int, sys.argv[1:]))
