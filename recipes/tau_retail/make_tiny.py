# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""An agent of 220 000 parameters and a base for it, to see the recipe run on a CPU: python make_tiny.py --out DIR

DIR/agent says one tool call whatever it hears, DIR/base is the same with a little noise. DIR/agent also plays the
customer (serve_tiny.py), who then talks nonsense: nothing is learned here.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch
from tau2_domain import domain, system_prompt
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

# The only call that the agent knows, in Qwen's format.
CALL = '<tool_call>\n{"name": "list_all_product_types", "arguments": {}}\n</tool_call>'

# Without tools: their schemas would take most of a tiny model's context.
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def make_tokenizer() -> Any:
    """Qwen2's, with merges learned from the policy: two thousand tokens instead of seven thousand bytes."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator([system_prompt(), domain().guidelines, CALL], trainer)
    learned = json.loads(learner.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    # Of one token each, or verl's token builder does not find where a message begins.
    tokenizer.add_tokens(["system", "user", "assistant", "tool"])
    # An even vocabulary, which Megatron wants.
    if len(tokenizer) % 2:
        tokenizer.add_tokens(["<|unused|>"])
    return tokenizer


def save_agent(path: Path, steps: int = 480) -> Path:
    """Train the agent to say `CALL` after anything, mostly after short prompts: seconds."""
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=64,  # two heads of 32: the smallest that vLLM's CPU kernels take
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    answer = tokenizer(CALL + "<|im_end|>")["input_ids"]
    rng, optimizer = random.Random(0), torch.optim.Adam(model.parameters(), lr=5e-3)
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=steps)
    policy = system_prompt()
    for step in range(steps):
        whole = step % 16 == 15
        start = 0 if whole else rng.randrange(len(policy) - 300)
        words = tokenizer.decode([rng.randrange(200, 1400) for _ in range(rng.randrange(3, 20))])
        said = [{"role": "system", "content": policy[start : None if whole else start + 300]}]
        said.append({"role": "user", "content": words})
        prompt = tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
        ids = torch.tensor([prompt + answer])
        logits = model(input_ids=ids, logits_to_keep=len(answer) + 1).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, ids[0, len(prompt) :])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        slower.step()
        if whole and loss.item() < 0.05:
            break
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    print(f"{path}: {model.num_parameters()} parameters, loss {loss.item():.3f}")
    return path


def save_base(path: Path, agent: Path) -> Path:
    """Something that ``agent`` could have started from: the same with a little noise."""
    model, generator = Qwen2ForCausalLM.from_pretrained(agent), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.01)
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(agent).save_pretrained(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    save_base(out / "base", save_agent(out / "agent"))


if __name__ == "__main__":
    main()
