# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Worker mode on this machine's GPUs, all of them. Skipped where there is none.

Each rank is a process of its own with verl's CUDA platform and NCCL, as verl's workers are.
"""

from pathlib import Path

import architectures
import gpu_ranks
import pytest
import torch
from checkpoints import weights

from rejuv_plugin.checkpoint import Plan, apply, plan_fusion, plan_reset
from rejuv_plugin.config import FusionConfig, ResetConfig
from rejuv_plugin.neurons.modules import modules_of
from rejuv_plugin.neurons.reset_set import Chosen, ResetSet
from rejuv_plugin.probe.dialogue import Example
from rejuv_plugin.probe.measure import measure_sharded

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use"),
]


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    for seed, side in enumerate(("base", "sft")):
        architectures.make("llama-biases", seed).bfloat16().save_pretrained(tmp_path / side)
    return tmp_path


def planned(pair: Path) -> Plan:
    return plan_fusion(str(pair / "base"), str(pair / "sft"), FusionConfig(alpha=0.4))


def load(device: torch.device, pair: Path, strategy: str) -> None:
    """On a rank: the engine holds what `apply` wrote."""
    from fsdp_cpu import engines

    from rejuv_plugin.integrations.verl.worker_mode.engines import load_rejuvenated

    plan = planned(pair)
    modules = modules_of(plan.sft.config, plan.sft.shapes, "--sft")
    chosen = {m.name: Chosen(m.kind, m.count, tuple(range(0, m.count, 3))) for m in modules}
    plan = plan_reset(plan, ResetSet("llama", chosen), 0.8, "--reset-set")
    if torch.distributed.get_rank() == 0:
        apply(plan, pair / "output")
    torch.distributed.barrier()
    engine = engines.build(pair / "sft", strategy)
    load_rejuvenated(engine, plan, f"on rank {torch.distributed.get_rank()}")
    engine.initialize()
    found = engines.exported(engine)
    for name, tensor in weights(pair / "output").items():
        assert torch.equal(found[name].cpu(), tensor.float()), name


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
def test_engines_hold_what_disk_mode_writes(pair: Path, strategy: str) -> None:
    gpu_ranks.run(load, pair, strategy)


def search(device: torch.device, pair: Path, settings: ResetConfig, examples: list[Example]) -> None:
    """On a rank: the set differs from the CPU's by neurons next to close cuts at most, and the GPU is free again."""
    arguments = (planned(pair), settings, examples, {}, "--")
    on_cpu, found = (measure_sharded(*arguments, on) for on in (torch.device("cpu"), device))
    differing = sum(len({*found.modules[name].indices} ^ {*c.indices}) for name, c in on_cpu.modules.items())
    assert differing <= 2 * found.statistics["cuts"]["close"]
    # cuBLAS keeps its workspaces, some 10 MiB that every later user of the process shares.
    torch._C._cuda_clearCublasWorkspaces()
    assert torch.cuda.memory_allocated(device) < 1 << 20


def test_neurons_found_on_gpus(pair: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    texts = [tuple(torch.randint(3, 96, (20,), generator=generator).tolist()) for _ in range(5)]
    examples = [Example(text, tuple(range(8, 20))) for text in texts]
    gpu_ranks.run(search, pair, ResetConfig(ratio=0.05, calibration="-", positions=2), examples)
