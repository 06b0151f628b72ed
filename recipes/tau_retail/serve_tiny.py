# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint behind OpenAI's chat completions, on this machine's CPU: python serve_tiny.py MODEL --port 8000

In the place of `vllm serve` where there is no GPU: one request after the other, a few tokens each.
"""

import argparse
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

Answer = Callable[[dict[str, Any]], str | int]
"""A request's body to the text, or to an HTTP status."""


def server(answer: Answer, port: int = 0) -> ThreadingHTTPServer:
    """A server on 127.0.0.1, not started; port 0 is any free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said = answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status, body = (said, {"error": "no"}) if isinstance(said, int) else (200, completion(said))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: Any) -> None: ...

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def completion(text: str) -> dict[str, Any]:
    return {"object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


def speaking(path: Path, most: int = 12) -> Answer:
    """A checkpoint that says what comes to its mind, at most ``most`` tokens, by the request's seed and temperature."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    alone = Lock()  # torch has one random state

    def answer(body: dict[str, Any]) -> str:
        ids = tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_dict=False)
        sampling: dict[str, Any] = {"do_sample": False}
        if body["temperature"]:
            sampling = {"do_sample": True, "temperature": body["temperature"]}
        with alone, torch.inference_mode():
            torch.manual_seed(body["seed"])
            out = model.generate(torch.tensor([ids]), max_new_tokens=min(most, body["max_tokens"]), **sampling)
        return tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True)

    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    served = server(speaking(options.model), options.port)
    print(f"{options.model}: http://127.0.0.1:{served.server_port}/v1", flush=True)
    served.serve_forever()


if __name__ == "__main__":
    main()
