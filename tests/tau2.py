# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""tau2's retail recipe for tests: where its package is, and endpoints that speak OpenAI's chat completions."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "tau_retail"
# Where constraints/install.sh puts inspect-evals: beside the environment, since it names a hundred packages.
PACKAGES = Path(sys.prefix, "tau")


def on_path() -> list[str]:
    """What the recipe needs on PYTHONPATH; here too from now on."""
    paths = [str(RECIPE), str(PACKAGES)]
    sys.path[:0] = [path for path in paths if path not in sys.path]
    return paths


@contextmanager
def endpoint(answer: Callable[[dict[str, Any]], str | int]) -> Iterator[str]:
    """Serve chat completions; yields the URL. ``answer``: a request's body to the text, or to an HTTP status."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said = answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status, body = (said, {"error": "no"}) if isinstance(said, int) else (200, completion(said))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def completion(text: str) -> dict[str, Any]:
    return {"object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


# Qwen's format, of the only call that the tiny agent knows.
CALL = '<tool_call>\n{"name": "list_all_product_types", "arguments": {}}\n</tool_call>'


def tokenizer() -> Any:
    """tests/tiny.py's, with merges learned from the policy: two thousand tokens instead of seven thousand bytes."""
    import tiny
    from tau2_domain import domain, system_prompt
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator([system_prompt(), domain().guidelines, CALL], trainer)
    learned = json.loads(learner.to_str())["model"]
    tok = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tok.chat_template = tiny.CHAT_TEMPLATE
    tok.add_tokens(["system", "user", "assistant", "tool"])
    return tok


def save_agent(path: Path, steps: int = 240) -> Path:
    """A tiny Qwen2 that learned to say `CALL` after anything, mostly after short prompts: seconds."""
    import random

    import torch
    from tau2_domain import system_prompt
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tok = tokenizer()
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tok),
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
            pad_token_id=tok.pad_token_id,
            eos_token_id=tok.eos_token_id,
            bos_token_id=None,
        )
    )
    model.generation_config.eos_token_id = tok.eos_token_id
    model.generation_config.pad_token_id = tok.pad_token_id
    answer = tok(CALL + "<|im_end|>")["input_ids"]
    rng, optimizer = random.Random(0), torch.optim.Adam(model.parameters(), lr=5e-3)
    policy = system_prompt()
    for step in range(steps):
        whole = step % 16 == 15
        start = 0 if whole else rng.randrange(len(policy) - 300)
        words = tok.decode([rng.randrange(200, 1400) for _ in range(rng.randrange(3, 20))])
        said = [{"role": "system", "content": policy[start : None if whole else start + 300]}]
        said.append({"role": "user", "content": words})
        prompt = tok.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
        ids = torch.tensor([prompt + answer])
        logits = model(input_ids=ids, logits_to_keep=len(answer) + 1).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, ids[0, len(prompt) :])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if whole and loss.item() < 0.05:
            break
    model.save_pretrained(path)
    tok.save_pretrained(path)
    return path


def save_base(path: Path, agent: Path) -> Path:
    """Something that ``agent`` could have started from: the same with a little noise."""
    import torch
    from transformers import AutoTokenizer, Qwen2ForCausalLM

    model, generator = Qwen2ForCausalLM.from_pretrained(agent), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.01)
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(agent).save_pretrained(path)
    return path


def served(path: Path, most: int = 12) -> Callable[[dict[str, Any]], str]:
    """An `answer` for `endpoint`: a checkpoint that says what comes to its mind, at most ``most`` tokens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tok = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)

    def answer(body: dict[str, Any]) -> str:
        ids = tok.apply_chat_template(body["messages"], add_generation_prompt=True, return_dict=False)
        torch.manual_seed(body["seed"])
        sampling = (
            {"do_sample": True, "temperature": body["temperature"]} if body["temperature"] else {"do_sample": False}
        )
        with torch.inference_mode():
            out = model.generate(torch.tensor([ids]), max_new_tokens=min(most, body["max_tokens"]), **sampling)
        return tok.decode(out[0, len(ids) :], skip_special_tokens=True)

    return answer
