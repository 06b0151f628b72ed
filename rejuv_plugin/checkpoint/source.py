# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Where a checkpoint comes from: a local directory, or a model on the Hugging Face hub."""

import re
from pathlib import Path

from ..errors import InputError, one_line

# Weights as safetensors, configuration, tokenizer, chat templates, and the code that config.json's auto_map names: it
# is copied like the rest and never run here. No pickles, which run when they are read.
_WANTED = ["*.safetensors", "*.json", "*.model", "*.txt", "*.tiktoken", "*.jinja", "*.py"]
# Sub-directories hold other formats; "consolidated" are the same weights again in the layout of their maker.
_UNWANTED = ["*/*.safetensors", "*/*.json", "*/*.py", "consolidated*"]
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def is_hub_name(name: str) -> bool:
    """Whether `locate` would ask the hub for ``name``: it may be a hub name, and nothing of that name is here.

    A relative path that does not exist can look like a hub name, too. Nothing is downloaded.
    """
    return _HUB_NAME.fullmatch(name) is not None and not Path(name).expanduser().exists()


def locate(name: str, key: str) -> Path:
    """The directory of a checkpoint, absolute and free of symbolic links; downloaded if ``name`` is a hub name.

    Raises:
        InputError: named ``key``; neither a directory nor a model that can be downloaded.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.exists():
        raise InputError(key, "a directory or a hub name", f"{name}, which is a file", "give the directory it lies in")
    if "://" in name:
        fix = "download it to a disk that all nodes see, and give that directory"
        raise InputError(key, "a directory or a hub name", f"the address {name!r}", fix)
    if not is_hub_name(name):
        raise InputError(key, "a directory or a hub name", f"{name!r}, which does not exist", f"check {key}")
    # Imported late: a local path, the common case, must not pay for the hub client.
    import httpx
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED, ignore_patterns=_UNWANTED)).resolve()
    except (OSError, ValueError, httpx.HTTPError) as error:
        reason = one_line(error)
        raise InputError(
            key,
            "a directory or a hub name that can be downloaded",
            f"{name!r}: no such directory here, and not to be had from the hub ({type(error).__name__}: {reason})",
            f"check {key} and the network, or download it elsewhere and give its directory",
        ) from None
