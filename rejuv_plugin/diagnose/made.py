# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""How a result was made: the head of metrics.json and of tuning.json."""

from datetime import UTC, datetime
from importlib.metadata import version
from platform import python_version
from typing import TYPE_CHECKING, Any

from .. import __version__

if TYPE_CHECKING:
    import torch

FORMAT = 1


def made(what: str, device: "torch.device", seconds: float) -> dict[str, Any]:
    """``format``, ``what``, ``made`` (UTC), ``versions``, ``machine`` and ``seconds``.

    Args:
        what: ``diagnosis`` or ``tuning``.
        device: that the models ran on.
        seconds: that it took.
    """
    # Imported late: `FORMAT` is also used where torch, which takes seconds to import, has nothing to do.
    import torch

    libraries = {name: version(name) for name in ("torch", "transformers", "numpy")}
    return {
        "format": FORMAT,
        "what": what,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"rejuv-plugin": __version__, "python": python_version(), **libraries},
        "machine": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
        },
        "seconds": round(seconds, 3),
    }
