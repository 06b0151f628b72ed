# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Kinds of checkpoints that cannot be fused, each refused with its reason."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .headers import FLOATING, TensorInfo

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def no_safetensors(root: Path, key: str) -> InputError:
    """The error for a directory without ``model.safetensors`` and without an index, by what is there instead."""
    names = sorted(entry.name for entry in root.iterdir())
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if "adapter_model.safetensors" in names or "adapter_config.json" in names:
        return InputError(
            key,
            "a full checkpoint",
            f"{root}, which is a LoRA adapter",
            "merge it into its base (peft: merge_and_unload) and save the result",
        )
    if pickles:
        return InputError(
            key,
            "a checkpoint in safetensors",
            f"{root}, which has pickles ({pickles[0]}); loading one can run any code, so we never do",
            "convert it where you trust it: AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)",
        )
    return InputError(
        key,
        "model.safetensors or model.safetensors.index.json",
        f"{root}, which has neither",
        "give the directory of a Hugging Face checkpoint saved as safetensors",
    )


def refuse_quantised(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], key: str) -> None:
    """Raise for weights that are codes: a mean of two codes is not the code of the mean.

    Raises:
        InputError: named ``key``; config.json says so, or a weight is stored in fewer than 16 bits or as integers.
    """
    for entry in ("quantization_config", "compression_config"):
        if config.get(entry):
            raise _quantised(key, f"a quantised one (config.json has {entry})")
    for name, info in tensors.items():
        integers = info.dtype not in FLOATING and not info.dtype.startswith("F")
        # Integer buffers (position ids, masks) are no weights and are copied.
        packed_weight = integers and len(info.shape) >= 2 and "weight" in name.rpartition(".")[2]
        if packed_weight or (info.dtype not in FLOATING and not integers):
            raise _quantised(key, f"a quantised one ({name} is stored as {info.dtype})")


def _quantised(key: str, got: str) -> InputError:
    return InputError(
        key,
        "a checkpoint of 16-, 32- or 64-bit floating-point weights",
        got,
        "give the checkpoint it was quantised from, or dequantise it and save it again",
    )
