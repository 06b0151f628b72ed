# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint as a transformers model, on the CPU or on one GPU; spread over several see `sharded.load`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ..checkpoint.layout import Checkpoint
from ..errors import InputError, one_line

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

    with _loading(checkpoint):
        model: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint.root, dtype=torch.float32, use_safetensors=True, **_attention(checkpoint), **_SAFE
        )
    return model.to(device).eval().requires_grad_(False)


def skeleton(checkpoint: Checkpoint, **changes: Any) -> Any:
    """The model of `load_model` without the values of its parameters, which are on the meta device. Its buffers are
    real, on the CPU: what is not in a checkpoint, such as the frequencies of rotary embeddings, is as there.

    Args:
        checkpoint: no weight of it is read.
        changes: to its configuration.

    Raises:
        InputError: as `load_model`.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    # torch's own annotation has no return value, which is what the hook is for.
    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> Any:
        # One that is there already is being tied: it stays the same object.
        if parameter is None or parameter.is_meta:
            return None
        return nn.Parameter(parameter.to("meta"), requires_grad=False)

    hook = register_module_parameter_registration_hook(on_meta)
    try:
        with _loading(checkpoint):
            config = AutoConfig.from_pretrained(checkpoint.root, **_SAFE, **changes)
            model = AutoModelForCausalLM.from_config(
                config, dtype=torch.float32, trust_remote_code=False, **_attention(checkpoint)
            )
    finally:
        hook.remove()
    return model.eval().requires_grad_(False)


def load_config(checkpoint: Checkpoint) -> Any:
    """The configuration, as transformers has it.

    Raises:
        InputError: as `load_model`.
    """
    from transformers import AutoConfig

    with _loading(checkpoint):
        return AutoConfig.from_pretrained(checkpoint.root, **_SAFE)


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
def fitting(device: torch.device, key: str, or_else: str = "") -> Iterator[None]:
    """A GPU that is too small for what the block does, as an error of the setting ``key`` that chose it, with what
    else may help.

    Raises:
        InputError: named ``key``.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = one_line(error)
        raise InputError(
            key,
            "a GPU with room for the model in float32 and for one example",
            f"{torch.cuda.get_device_name(device)} ({reason})",
            f"set {key} to cpu, or cut examples sooner with max_tokens" + (f", or {or_else}" if or_else else ""),
        ) from None


def _attention(checkpoint: Checkpoint) -> dict[str, Any]:
    # The fast attention kernels leave out the cap that Gemma 2 puts on attention logits.
    return {"attn_implementation": "eager"} if checkpoint.config.get("attn_logit_softcapping") else {}


@contextmanager
def _loading(checkpoint: Checkpoint) -> Iterator[None]:
    from transformers.utils import logging

    # transformers draws its bars into logs too; what is on stderr is ours.
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _unreadable(checkpoint, "a causal language model", error) from None
    finally:
        if shown:
            logging.enable_progress_bar()


def _unreadable(checkpoint: Checkpoint, what: str, error: Exception) -> InputError:
    reason = one_line(error)
    return InputError(
        checkpoint.key,
        f"{what} that transformers loads",
        f"{checkpoint.root} ({type(error).__name__}: {reason})",
        "save the checkpoint again with transformers",
    )
