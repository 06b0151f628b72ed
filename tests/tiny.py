# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny genuine HF checkpoints and data sets that verl accepts: made in a second, no download."""

import json
import random
from pathlib import Path

import pandas as pd
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

# verl's token builder for qwen2 wants <|im_end|> and a one-token newline. transformers rebuilds the tokenizer of a
# qwen2 checkpoint as byte-level BPE, so we use that without merges: one token a byte.
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
REWARD = '''
def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    """Share of digits: any random model earns some, so every group has a gradient."""
    return sum(c.isdigit() for c in solution_str) / max(1, len(solution_str))
'''


def tokenizer() -> Qwen2Tokenizer:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    symbols = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    vocab = {symbols[b]: b for b in range(256)}
    tok = Qwen2Tokenizer(
        vocab=vocab,
        merges=[],
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tok.chat_template = CHAT_TEMPLATE
    tok.add_tokens(["system", "user", "assistant", "tool"])
    return tok


def save_base(path: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, tied: bool = True) -> Path:
    tok = tokenizer()
    config = Qwen2Config(
        vocab_size=len(tok),
        hidden_size=64,  # two heads of 32: the smallest that vLLM's CPU kernels take
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        pad_token_id=tok.pad_token_id,
        eos_token_id=tok.eos_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config).to(dtype)
    model.generation_config.eos_token_id = tok.eos_token_id
    model.generation_config.pad_token_id = tok.pad_token_id
    model.save_pretrained(path)
    tok.save_pretrained(path)
    return path


def save_sft(path: Path, base: Path, *, seed: int = 1, scale: float = 0.02) -> Path:
    """The base with noise on every weight: what fine-tuning leaves, for tests that do not care what was learned."""
    model = Qwen2ForCausalLM.from_pretrained(base)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * scale
            parameter.add_(noise.to(parameter.dtype))
    model.save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def save_calibration(path: Path, rows: int = 4) -> Path:
    """Write prompts with responses, as jsonl."""
    pairs = [{"prompt": f"{a}+{a}=", "response": f"{2 * a} it is"} for a in range(rows)]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path


def save_data(directory: Path, *, train: int = 64, val: int = 4, **columns: str) -> None:
    """Write train.parquet, val.parquet and reward.py; ``columns`` are added to every row (``agent_name`` for one)."""
    rng = random.Random(0)
    sums = rng.sample([(a, b) for a in range(30) for b in range(30)], train + val)
    rows = [
        {
            "data_source": "sums",
            "prompt": [{"role": "user", "content": f"{a}+{b}="}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(a + b)},
            "extra_info": {"index": i},
            **columns,
        }
        for i, (a, b) in enumerate(sums)
    ]
    directory.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows[:train]).to_parquet(directory / "train.parquet")
    pd.DataFrame(rows[train:]).to_parquet(directory / "val.parquet")
    (directory / "reward.py").write_text(REWARD)
