# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""tau2's retail recipe for tests: where its package is, and endpoints that speak OpenAI's chat completions."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "tau_retail"
# Where constraints/install.sh puts inspect-evals: beside the environment, since it names a hundred packages.
PACKAGES = Path(sys.prefix, "tau")


def on_path() -> list[str]:
    """What the recipe needs on PYTHONPATH; here too from now on."""
    paths = [str(RECIPE), *([] if find_spec("inspect_evals") else [str(PACKAGES)])]
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
