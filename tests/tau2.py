# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""tau2's retail recipe for tests: where its package is, and endpoints that speak OpenAI's chat completions."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from beside import beside

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "tau_retail"


def on_path() -> list[str]:
    """What the recipe needs on PYTHONPATH; here too from now on."""
    paths = [str(RECIPE), str(beside("tau"))]
    sys.path[:0] = [path for path in paths if path not in sys.path]
    return paths


@contextmanager
def endpoint(answer: Any) -> Iterator[str]:
    """Serve chat completions; yields the URL. ``answer``: serve_tiny's, a request's body to the text or a status."""
    from serve_tiny import server

    served = server(answer)
    Thread(target=served.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{served.server_port}/v1"
    finally:
        served.shutdown()
        served.server_close()
