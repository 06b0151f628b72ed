# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Malformed headers, indices, configurations and adapters: our error, or a correct result; never anything else.

    python tests/stress/fuzz_inputs.py --inputs 10000 [--seed 0]

Each input is a good checkpoint with one to three mutations of its bytes or its JSON. Planning it, and applying it where
planning succeeds, must raise `InputError` (or, for a file that ends too early while it is read, OSError), or write an
output that `rejuv verify` accepts; within 10 seconds and 200 MB of allocations, and with no file outside of the output.
Exit code 0 if all of that held.
"""

import argparse
import copy
import json
import random
import resource
import shutil
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
from checkpoints import INDEX, save_model
from safetensors.torch import save_file

from rejuv_plugin.checkpoint import apply, local, plan_fusion, verify
from rejuv_plugin.config import FusionConfig
from rejuv_plugin.errors import InputError

LIMIT_SECONDS, LIMIT_BYTES = 10.0, 200_000_000
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2**31,
        2**63,
        2**64,
        -(2**63),
        10**400,
        0.5,
        1e308,
        "",
        "x",
        "../x",
        "/etc/passwd",
        "\0",
    ),
    *(
        [],
        {},
        [[]],
        {"a": 1},
        [0, 2**62],
        [-1, 5],
        [1, 2, 3],
        "BF16",
        "F8_E4M3",
        "F4",
        "I64",
        "NaN",
        [2**40, 2**40],
        "é" * 50,
    ),
]


def mutate_json(value: Any, rng: random.Random) -> Any:
    """A copy of a JSON value with one change somewhere in it."""
    value = copy.deepcopy(value)
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        action = rng.random()
        if action < 0.15:
            del value[key]
        elif action < 0.25:
            value[rng.choice(["", "x", "__metadata__", "lm_head.weight", "../x", key + "x"])] = value.pop(key)
        elif action < 0.35:
            value[f"{key}2"] = value[key]
        else:
            value[key] = mutate_json(value[key], rng)
        return value
    if isinstance(value, list) and value and rng.random() < 0.7:
        index = rng.randrange(len(value))
        value[index] = mutate_json(value[index], rng)
        return value
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5:
        return value + rng.choice([-1, 1, 2, -value, value, 1 << 20, -(1 << 40)])
    return rng.choice(VALUES)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    action = rng.randrange(6)
    if action == 0 and changed:
        changed = changed[: rng.randrange(len(changed))]
    elif action == 1:
        changed += rng.randbytes(rng.randrange(1, 100))
    elif action == 2:
        # The length of a header, if it is one.
        changed[:8] = rng.choice([0, 1, 7, 2**31, 2**63, 2**64 - 1, 10**8, len(data)]).to_bytes(8, "little")
    elif action == 3 and changed:
        at = rng.randrange(len(changed))
        changed[at:at] = rng.choice([b"{", b"[" * 100_000, b"\xff", b"\0" * 50, b"9" * 5000, b'"', b"NaN"])
    else:
        for _ in range(rng.randrange(1, 5)):
            if changed:
                # The front of a file is where its structure is.
                changed[rng.randrange(min(len(changed), 2000) if rng.random() < 0.8 else len(changed))] = rng.randrange(
                    256
                )
    return bytes(changed)


def mutate_header(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with a mutated header of the right length."""
    length = int.from_bytes(data[:8], "little")
    try:
        header = mutate_json(json.loads(data[8 : 8 + length]), rng)
        text = json.dumps(header).encode()
    except (ValueError, RecursionError):
        return mutate_bytes(data, rng)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def mutate(root: Path, rng: random.Random) -> str:
    """Change one file of one side."""
    side = rng.choice(["base", "sft"])
    files = [
        path for path in sorted((root / side).iterdir()) if path.is_file() and not path.name.startswith("tokenizer")
    ]
    path = rng.choice(files)
    if not rng.random() > 0.03:
        path.unlink()
        return f"{side}/{path.name} gone"
    data = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.7:
        try:
            data = json.dumps(mutate_json(json.loads(data), rng)).encode()
        except (ValueError, RecursionError):
            data = mutate_bytes(data, rng)
    elif path.suffix == ".safetensors" and rng.random() < 0.7:
        data = mutate_header(data, rng)
    else:
        data = mutate_bytes(data, rng)
    path.write_bytes(data)
    return f"{side}/{path.name}"


def make_sources(root: Path) -> list[Path]:
    """Pairs to start from: single files, shards, and an adapter."""
    options: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 12, "vocab_size": 16}
    pairs = []
    for name, size in (("single", "1GB"), ("shards", "1KB")):
        for seed, side in enumerate(("base", "sft")):
            save_model(root / name / side, seed, max_shard_size=size, **options)
        pairs.append(root / name)
    assert (root / "shards" / "sft" / INDEX).exists()
    save_model(root / "adapter" / "base", 0, **options)
    (root / "adapter" / "sft").mkdir()
    module = "base_model.model.model.layers.0.self_attn.q_proj.lora"
    tensors = {f"{module}_A.weight": torch.ones(2, 8), f"{module}_B.weight": torch.ones(8, 2)}
    save_file(tensors, root / "adapter" / "sft" / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "bias": "none",
        "rank_pattern": {"x": 1},
        "alpha_pattern": {},
    }
    (root / "adapter" / "sft" / "adapter_config.json").write_text(json.dumps(config))
    return [*pairs, root / "adapter"]


def attempt(root: Path) -> str:
    """What comes of it, in a word; ``wrong: ...`` if it must not be."""
    try:
        plan = plan_fusion(str(root / "base"), str(root / "sft"), FusionConfig(0.4, grown_vocabulary="keep"))
        apply(plan, root / "out", shards=local(1))
    except InputError as error:
        return "InputError" if "\n" not in str(error) else f"wrong: an error of several lines: {error}"
    except OSError as error:
        return "OSError" if "changed while it was read" in str(error) else f"wrong: {error!r}"
    except Exception as error:
        return f"wrong: {type(error).__name__}: {str(error)[:200]}"
    return f"wrong: an output with {problems}" if (problems := verify(root / "out", "out")) else "output"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # A hard bound, too: an allocation of what a header claims would end in MemoryError.
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, resource.RLIM_INFINITY))
    outcomes: Counter[str] = Counter()
    wrong, slowest, largest = [], 0.0, 0
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory).resolve()
        sources = make_sources(top / "sources")
        tracemalloc.start()
        for i in range(arguments.inputs):
            rng = random.Random(arguments.seed * 1_000_003 + i)
            root = top / "work"
            shutil.copytree(rng.choice(sources), root)
            what = [mutate(root, rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
            before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
            tracemalloc.reset_peak()
            began, held = time.monotonic(), tracemalloc.get_traced_memory()[0]
            outcome = attempt(root)
            seconds, allocated = time.monotonic() - began, tracemalloc.get_traced_memory()[1] - held
            slowest, largest = max(slowest, seconds), max(largest, allocated)
            if seconds > LIMIT_SECONDS or allocated > LIMIT_BYTES:
                outcome = f"wrong: {seconds:.1f} s, {allocated} bytes"
            after = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
            strange = [path for path in after if before.get(path) != after[path] and root / "out" not in path.parents]
            if strange or set(before) - set(after) or sorted(p.name for p in top.iterdir()) != ["sources", "work"]:
                outcome = f"wrong: files outside of the output: {strange}"
            if outcome.startswith("wrong"):
                wrong.append(f"input {i} (seed {arguments.seed}), {what}: {outcome}")
            outcomes[outcome.partition(":")[0]] += 1
            shutil.rmtree(root)
    print(
        f"{arguments.inputs} inputs: {dict(outcomes)}; slowest {slowest:.2f} s, most allocated {largest / 1e6:.1f} MB"
    )
    print("\n".join(wrong[:20]) or "all as it should be")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
