# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint as a transformers model, on the CPU or on one GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..checkpoint.layout import Checkpoint
from ..errors import InputError

# No code of a checkpoint is run, no pickle is loaded, nothing is fetched.
_SAFE: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}


def device_of(setting: str, key: str) -> torch.device:
    """The device for the setting ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: named ``key``; ``cuda`` where there is none.
    """
    if setting == "cuda" and not torch.cuda.is_available():
        raise InputError(key, "a GPU that torch can use", "none in this process", f"set {key} to cpu or auto")
    return torch.device("cuda" if setting != "cpu" and torch.cuda.is_available() else "cpu")


def load_model(checkpoint: Checkpoint, device: torch.device) -> Any:
    """The model in float32, without dropout, none of its parameters asking for a gradient.

    Raises:
        InputError: named by the checkpoint's key; transformers cannot build it.
    """
    from transformers import AutoModelForCausalLM

    # The fast attention kernels leave out the cap that Gemma 2 puts on attention logits.
    attention = {"attn_implementation": "eager"} if checkpoint.config.get("attn_logit_softcapping") else {}
    try:
        with _no_bars():
            model: Any = AutoModelForCausalLM.from_pretrained(
                checkpoint.root, dtype=torch.float32, use_safetensors=True, **attention, **_SAFE
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _unreadable(checkpoint, "a causal language model", error) from None
    return model.to(device).eval().requires_grad_(False)


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer with its chat template.

    Raises:
        InputError: named by the checkpoint's key; transformers cannot build it.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(checkpoint.root, **_SAFE)
    # The tokenizers library raises plain Exception for a file that it cannot parse.
    except Exception as error:
        raise _unreadable(checkpoint, "a tokenizer", error) from None


@contextmanager
def fitting(device: torch.device, key: str) -> Iterator[None]:
    """A GPU that is too small for what the block does, as an error of the setting ``key`` that chose it.

    Raises:
        InputError: named ``key``.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            key,
            "a GPU with room for the model in float32 and for one example",
            f"{torch.cuda.get_device_name(device)} ({reason})",
            f"set {key} to cpu, or cut examples sooner with max_tokens",
        ) from None


@contextmanager
def _no_bars() -> Iterator[None]:
    """transformers draws its bars into logs too; what is on stderr is ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _unreadable(checkpoint: Checkpoint, what: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(
        checkpoint.key,
        f"{what} that transformers loads",
        f"{checkpoint.root} ({type(error).__name__}: {reason})",
        "save the checkpoint again with transformers",
    )
