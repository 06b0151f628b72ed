# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny checkpoints to read, break and compare; and what a test sees of a directory."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def save_model(
    path: Path,
    seed: int,
    *,
    tied: bool = False,
    dtype: torch.dtype = torch.bfloat16,
    max_shard_size: str = "1GB",
    **config,
) -> Path:
    """A random two-layer Qwen2 with the side files of a real checkpoint, as transformers saves it."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "vocab_size": 64, "num_hidden_layers": 2} | config
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied)
    ).to(dtype)
    # transformers starts norms at one and biases at zero, where every seed agrees.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(path, max_shard_size=max_shard_size)
    (path / "tokenizer.json").write_text(f'{{"made by": {seed},\r\n "odd":   "spacing é"}}')
    (path / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    (path / "chat_template.jinja").write_text("{{ messages }}\n")
    return path


def make_pair(tmp_path: Path, **options) -> tuple[Path, Path]:
    return save_model(tmp_path / "base", 0, **options), save_model(tmp_path / "sft", 1, **options)


def weights(path: Path) -> dict[str, torch.Tensor]:
    """All tensors, by the safetensors library."""
    return {name: tensor for file in sorted(path.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def set_weights(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Replace the weights of a single-file checkpoint."""
    save_file(tensors, path / SINGLE, metadata={"format": "pt"})


def edit_json(file: Path, **entries) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def write_safetensors(file: Path, tensors: list[tuple[str, torch.Tensor]], order: list[int] | None = None) -> None:
    """A valid file with its header in the order given and its bytes in ``order``, which the library never writes."""
    offsets, position, data = {}, 0, b""
    for i in order or range(len(tensors)):
        raw = tensors[i][1].contiguous().view(torch.uint8).numpy().tobytes()
        offsets[i] = [position, position + len(raw)]
        position += len(raw)
        data += raw
    names = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
    header = {"__metadata__": {"format": "pt", "note": "kept"}}
    for i, (name, tensor) in enumerate(tensors):
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets[i]}
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


def snapshot(directory: Path) -> dict[str, bytes | None]:
    """Every path below a directory with its bytes, to show that nothing was written."""
    return {str(p.relative_to(directory)): p.read_bytes() if p.is_file() else None for p in directory.rglob("*")}


def copy(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))
