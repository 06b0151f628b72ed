# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a rank of the sharded probe takes: python tests/benchmarks/sharded_cost.py [hidden] [layers] [tokens] [examples]

A random Qwen2 pair in bfloat16, found on 1, 2 and 4 forked ranks over gloo, and by one process without ranks. Memory:
the peak of a rank's anonymous pages, sampled every 5 ms, above what it had before; mapped weight files are not in it.
Run it with MALLOC_MMAP_THRESHOLD_=1000000: glibc otherwise keeps what was freed, and the peak tells little.
Time: CPU seconds of all ranks together.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1]))
import ranks

from rejuv_plugin.checkpoint import plan_fusion
from rejuv_plugin.checkpoint.layout import Checkpoint
from rejuv_plugin.config import FusionConfig, ResetConfig
from rejuv_plugin.probe import measure
from rejuv_plugin.probe.dialogue import Example
from rejuv_plugin.probe.load import load_model
from rejuv_plugin.probe.ranks import ALONE

CPU = torch.device("cpu")


def save(root: Path, hidden: int, layers: int) -> int:
    """Write base and SFT; returns the bytes of one of them in float32."""
    config = Qwen2Config(
        vocab_size=32 * hidden,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 64,
        tie_word_embeddings=False,
    )
    for seed, side in enumerate(("base", "sft")):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config).bfloat16()
        model.save_pretrained(root / side)
    return 4 * sum(p.numel() for p in model.parameters())


def anonymous() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


def cost(call: Callable[[], object]) -> tuple[int, float]:
    """Peak bytes above what was there, and CPU seconds."""
    before, peak, done = anonymous(), 0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, anonymous())

    sampler = threading.Thread(target=sample)
    sampler.start()
    began = time.process_time()
    call()
    seconds = time.process_time() - began
    done.set()
    sampler.join()
    return peak - before, seconds


def main() -> None:
    given = [int(a) for a in sys.argv[1:]]
    hidden, layers, tokens, number = given + [512, 16, 128, 4][len(given) :]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(32 * hidden, (number, tokens), generator=generator).tolist()
    examples = [Example(tuple(row), tuple(range(tokens // 2, tokens))) for row in ids]
    settings = ResetConfig(ratio=0.01, calibration="in memory")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        whole = save(root, hidden, layers)
        plan = plan_fusion(str(root / "base"), str(root / "sft"), FusionConfig())

        def load(side: Checkpoint) -> object:
            return load_model(side, CPU)

        def alone() -> object:
            return measure._found(plan, settings, examples, {}, "--", load, ALONE, None)

        def sharded() -> object:
            return measure.measure_sharded(plan, settings, examples, {}, "--", CPU)

        print(f"hidden {hidden}, {layers} layers, {number} x {tokens} tokens; float32 {whole / 2**20:.0f} MiB")
        for name, call, world in (("one process", alone, 1), *((f"{n} ranks", sharded, n) for n in (1, 2, 4))):
            found = ranks.run(cost, world, call, seconds=1200.0)
            peak, seconds = max(peak for peak, _ in found), sum(used for _, used in found)
            share = peak / whole
            print(f"{name:12} peak {peak / 2**20:6.0f} MiB a rank, {share:.2f} of it; CPU {seconds:6.1f} s in all")


if __name__ == "__main__":
    main()
