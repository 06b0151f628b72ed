# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A LoRA adapter as the SFT checkpoint: which tensors of the base it changes and how, from headers and JSON alone.

What PEFT calls ``merge_and_unload`` is ``base + scale * (B @ A)``, with ``scale = lora_alpha / r`` (``/ sqrt(r)`` with
``use_rslora``), ``r`` and ``lora_alpha`` of a module by ``rank_pattern`` and ``alpha_pattern``, transposed for
embeddings and with ``fan_in_fan_out``; ``modules_to_save`` are stored whole and replace the base's tensors.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .compatible import EMBEDDINGS, HEADS, is_head, module_of, of_text
from .headers import FLOATING, TensorInfo, read_header
from .layout import Checkpoint, read_object, side_files

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PAIRS = {".lora_A.weight": ".lora_B.weight", ".lora_embedding_A": ".lora_embedding_B"}
_EMBEDDING = ".lora_embedding_A"
_BASE_LAYER = ".base_layer"
_BLOCK_BYTES = 1 << 20
# Variants whose merge is another formula, by the entry of adapter_config.json that asks for them.
_OTHER_FORMULAS = (
    *("use_dora", "lora_bias", "layer_replication", "target_parameters", "trainable_token_indices", "use_qalora"),
    *("alora_invocation_tokens", "megatron_config", "arrow_config", "use_bdlora"),
)
# Initialisations that change the base's own weights, so that base and adapter no longer fit.
_CHANGE_THE_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")
_TOKENIZER = re.compile(
    r"tokenizer.*\.json|special_tokens_map\.json|added_tokens\.json|vocab\..*|merges\.txt|.*\.model|.*\.tiktoken|tekken\.json"
)
_VOCABULARY = re.compile(r"tokenizer\.json|vocab\..*|.*\.model|.*\.tiktoken|tekken\.json")
_SETTINGS = "tokenizer_config.json"
_TEMPLATE = re.compile(r".*\.jinja|chat_template\.json")


@dataclass(frozen=True)
class LowRank:
    """``scale * (left @ right)``, to be added to a tensor of the base."""

    left: TensorInfo
    """``[rows, r]``; ``[r, rows]`` if ``transposed``. In the adapter's file."""
    right: TensorInfo
    """``[r, columns]``; ``[columns, r]`` if ``transposed``."""
    transposed: bool
    scale: float


@dataclass(frozen=True)
class Adapter:
    """What an adapter does to the base, by tensor name."""

    path: Path
    """Its weight file."""
    added: Mapping[str, LowRank]
    replaced: Mapping[str, TensorInfo]


def is_adapter(root: Path) -> bool:
    """Whether a directory holds an adapter and no whole model."""
    return (root / CONFIG).is_file() and not list(root.glob("model*.safetensors*"))


def read_adapter(given: str, root: Path, key: str, base: Checkpoint) -> tuple[Checkpoint, Adapter]:
    """Read and check the adapter in ``root``.

    Returns:
        The adapter as a checkpoint, with the base's configuration and the side files of its own; and what it does.

    Raises:
        InputError: named ``key``; not a LoRA adapter, a variant with another formula, or not of this base.
    """
    config = read_object(root / CONFIG, key)
    _refuse_variants(config, key)
    header = read_header(root / WEIGHTS, key)
    checkpoint = Checkpoint(
        key, given, root, root.name, {WEIGHTS: header}, header.tensors, base.config, side_files(root, key)
    )
    return checkpoint, _read(config, checkpoint, base)


def merged_side_files(base: Checkpoint, adapter: Checkpoint) -> dict[str, Path]:
    """The base's side files; tokenizer and chat template from the adapter's directory, if it has its own.

    None of the base's may stay beside them: of two vocabularies, or of a template in a file and one in the tokenizer's
    configuration, loaders take one.
    """
    tokenizer, template = (_files(adapter, group) for group in (_TOKENIZER, _TEMPLATE))
    replaced: set[str] = set()
    if any(_VOCABULARY.fullmatch(Path(name).name) for name in tokenizer):
        replaced.update(_files(base, _TOKENIZER))
    in_settings = _SETTINGS in tokenizer and "chat_template" in read_object(adapter.root / _SETTINGS, adapter.key)
    if template or in_settings:
        replaced.update(_files(base, _TEMPLATE))
    kept = {name: base.root / name for name in base.side_files if name not in replaced}
    return kept | {name: adapter.root / name for name in (*tokenizer, *template)}


def _files(checkpoint: Checkpoint, group: re.Pattern[str]) -> list[str]:
    return [name for name in checkpoint.side_files if group.fullmatch(Path(name).name)]


def _refuse_variants(config: Mapping[str, Any], key: str) -> None:
    got: str | None
    if config.get("peft_type") != "LORA":
        got = f"peft_type {config.get('peft_type')!r}"
    elif config.get("bias", "none") != "none":
        got = f"bias {config['bias']!r}"
    elif str(config.get("init_lora_weights")).lower().startswith(_CHANGE_THE_BASE):
        got = f"init_lora_weights {config['init_lora_weights']!r}, which changes the base"
    else:
        got = next((entry for entry in _OTHER_FORMULAS if config.get(entry)), None)
    if got:
        raise InputError(
            key,
            "a full checkpoint or a plain LoRA adapter",
            f"an adapter with {got}",
            "merge it into its base (peft: merge_and_unload) and save the result",
        )


def _read(config: Mapping[str, Any], adapter: Checkpoint, base: Checkpoint) -> Adapter:
    added, replaced, used = {}, {}, set()
    for name, info in adapter.tensors.items():
        for first, second in _PAIRS.items():
            if name.endswith(first):
                other = name.removesuffix(first) + second
                if other not in adapter.tensors:
                    raise _unfit(adapter, f"{other} beside {name}", "none")
                module = name.removesuffix(first).removeprefix(_PREFIX)
                place = _place(adapter, base, f"{module}.weight", name)
                transposed = first == _EMBEDDING or bool(config.get("fan_in_fan_out"))
                added[place.name] = _low_rank(config, adapter, module, info, adapter.tensors[other], place, transposed)
                used |= {name, other}
    for name, info in adapter.tensors.items():
        if name in used:
            continue
        place = _place(adapter, base, name.removeprefix(_PREFIX).replace(_BASE_LAYER, ""), name)
        if _BASE_LAYER in name:
            _check_base_layer(adapter, base, name, place)
            continue
        if info.shape != place.shape:
            raise _unfit(adapter, f"{name} of shape {list(place.shape)}, as in {base.key}", f"{list(info.shape)}")
        replaced[place.name] = info
    return Adapter(adapter.root / WEIGHTS, added, replaced)


def _check_base_layer(adapter: Checkpoint, base: Checkpoint, name: str, place: TensorInfo) -> None:
    """Embeddings that PEFT saves beside the adapter, as they may have been resized, must be the base's."""
    info = adapter.tensors[name]
    same = (info.dtype, info.shape) == (place.dtype, place.shape)
    with (adapter.root / info.file).open("rb") as ours, (base.root / place.file).open("rb") as theirs:
        ours.seek(info.start)
        theirs.seek(place.start)
        for done in range(0, info.end - info.start, _BLOCK_BYTES):
            count = min(_BLOCK_BYTES, info.end - info.start - done)
            same = same and ours.read(count) == theirs.read(count)
    if not same:
        raise _unfit(adapter, f"{place.name} as in {base.key}", f"{name}, with other values,")


def _place(adapter: Checkpoint, base: Checkpoint, name: str, stored: str) -> TensorInfo:
    if name not in base.tensors or not stored.startswith(_PREFIX):
        raise _unfit(adapter, f"tensors of {base.key} ({base.root})", f"{stored}, which has no counterpart there")
    if module_of(name) in EMBEDDINGS + HEADS and _is_tied(base):
        raise _unfit(adapter, "embeddings left alone in a model that ties them", stored)
    for info in (base.tensors[name], adapter.tensors[stored]):
        if info.dtype not in FLOATING:
            raise _unfit(adapter, f"floating-point numbers for {name}", info.dtype)
    return base.tensors[name]


def _is_tied(base: Checkpoint) -> bool:
    """Where config.json leaves the flag out, as Gemma's does, it is the class's own: only a stored head tells."""
    flag = of_text(base, "tie_word_embeddings")
    return bool(flag) if flag is not None else not any(is_head(name) for name in base.tensors)


def _low_rank(
    config: Mapping[str, Any],
    adapter: Checkpoint,
    module: str,
    a: TensorInfo,
    b: TensorInfo,
    place: TensorInfo,
    transposed: bool,
) -> LowRank:
    try:
        rank = _of_module(config, "rank_pattern", module, config.get("r"))
        alpha = _of_module(config, "alpha_pattern", module, config.get("lora_alpha"))
        scale = float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))
    except (AttributeError, TypeError, ValueError, ArithmeticError, re.error) as error:
        raise _unfit(adapter, f"r and lora_alpha in {CONFIG}", f"{type(error).__name__} for {module}") from None
    rows, columns = place.shape if len(place.shape) == 2 else (0, 0)
    shapes = ((rank, rows), (columns, rank)) if transposed else ((rank, columns), (rows, rank))
    if (a.shape, b.shape) != shapes:
        raise _unfit(
            adapter,
            f"A and B of rank {rank} for {place.name} of shape {list(place.shape)}",
            f"{list(a.shape)} and {list(b.shape)}",
        )
    return LowRank(a, b, True, scale) if transposed else LowRank(b, a, False, scale)


def _of_module(config: Mapping[str, Any], patterns: str, module: str, otherwise: Any) -> Any:
    """An entry of ``rank_pattern`` or ``alpha_pattern`` as PEFT looks it up: the first whose pattern ends the name."""
    for pattern, value in (config.get(patterns) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return otherwise


def _unfit(adapter: Checkpoint, expected: str, got: str) -> InputError:
    return InputError(
        adapter.key,
        expected,
        f"{got} in the adapter {adapter.root}",
        "merge it into its base (peft: merge_and_unload) and save the result",
    )
