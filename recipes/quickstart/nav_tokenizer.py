# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A byte-level Qwen2 tokenizer without merges, with ChatML: 263 tokens.

A custom character-level tokenizer does not survive `AutoTokenizer` on a qwen2 checkpoint (transformers 5 rebuilds a
Qwen2Tokenizer and space and newline vanish); verl's token builder needs `<|im_end|>` and a one-token newline.
"""

from transformers import Qwen2Tokenizer

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
ROLES = ("system", "user", "assistant", "tool")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def byte_symbols() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = {byte: byte for byte in printable}
    for shift, byte in enumerate(byte for byte in range(256) if byte not in symbols):
        symbols[byte] = 256 + shift
    return [chr(symbols[byte]) for byte in range(256)]


def build_tokenizer() -> Qwen2Tokenizer:
    """The tokenizer. `len(tokenizer)` is the model's vocabulary size."""
    tokenizer = Qwen2Tokenizer(
        vocab={symbol: index for index, symbol in enumerate(byte_symbols())},
        merges=[],
        unk_token=PAD,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
    )
    tokenizer.add_tokens(list(ROLES))
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.padding_side = "left"
    return tokenizer


def chat_ids(tokenizer: Qwen2Tokenizer, problem: str) -> list[int]:
    """The prompt's token ids, ready to be answered."""
    messages = [{"role": "user", "content": problem}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
