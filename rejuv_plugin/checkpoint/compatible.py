# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a base and an SFT checkpoint are two states of one model: the checks that headers and config.json allow."""

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from ..errors import InputError
from .headers import FLOATING
from .layout import MANIFEST, Checkpoint
from .small_file import read_json

# Models can agree in every shape and still not be the same function: the same projection split into other heads.
_GEOMETRY = ("num_attention_heads", "num_key_value_heads", "head_dim", "num_hidden_layers", "hidden_act")
EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings")
HEADS = ("lm_head", "embed_out")
_PREDICTION = re.compile(r"(?:^|\.)mtp(?:_[a-z_]+)?\.")
_MASK = re.compile(r"\b(?:attn|attention)\.(?:masked_)?bias$")


def check_compatible(base: Checkpoint, sft: Checkpoint, grown_vocabulary: str, grown_key: str) -> dict[str, str]:
    """Check that every tensor of the SFT checkpoint has its base, and the reverse.

    Args:
        base: the base.
        sft: the SFT checkpoint.
        grown_vocabulary: ``keep`` lets embeddings have other numbers of rows.
        grown_key: how errors name that setting.

    Returns:
        For each tensor name of ``sft`` the name of its base tensor: its own, but for tied embeddings. There
        ``lm_head.weight`` may be stored in neither checkpoint, in one or in both; a tensor that only the SFT checkpoint
        stores has the base's tied partner as its base. Left out: heads that only the SFT checkpoint has (a value
        head), all of modules beside the model. The base alone may have what is for multi-token prediction, and either
        alone the buffers of `is_computed`.

    Raises:
        InputError: named by the base's key, since the SFT checkpoint is the one that the user trains.
    """
    _check_distinct(base, sft)
    _check_architecture(base, sft)
    partners = _base_names(base, sft)
    _check_shapes(base, sft, partners, grown_vocabulary, grown_key)
    return partners


def check_fused_once(base: Checkpoint, sft: Checkpoint, alpha: float) -> None:
    """Refuse to fuse with ``base`` what `rejuv apply` or a job has fused with it: 0.5 twice is 0.25, called 0.5.

    Args:
        base: the base.
        sft: the SFT checkpoint.
        alpha: of this fusion; 1 leaves the checkpoint as it is.

    Raises:
        InputError: named by the SFT checkpoint's key; its manifest says so.
    """
    try:
        record = read_json(sft.root / MANIFEST)
        fusion, source = record["settings"]["fusion"], record["inputs"]["sft"]["given"]
        theirs = {file: entry["size"] for file, entry in record["inputs"]["base"]["files"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return
    same = theirs == {file: header.size for file, header in base.headers.items()}
    if alpha != 1 and same and fusion != {"alpha": 1.0}:
        raise InputError(
            sft.key,
            f"a checkpoint that was not fused with {base.key} before",
            f"{sft.root}, which is {source} fused with alpha {fusion.get('alpha')}",
            f"give that one; or alpha 1, which leaves this as it is; to fuse it once more, remove its {MANIFEST}",
        )


def _check_distinct(base: Checkpoint, sft: Checkpoint) -> None:
    # Hub snapshots of two revisions, and hard links, are other directories with the same files in them.
    same_files = list(base.headers) == list(sft.headers) and all(
        os.path.samefile(base.root / file, sft.root / file) for file in base.headers
    )
    if same_files or os.path.samefile(base.root, sft.root):
        raise same_checkpoint(base, f"the same files as {sft.key} ({sft.root})")


def same_checkpoint(base: Checkpoint, got: str) -> InputError:
    """The error for a base that is the SFT checkpoint: fusion would silently do nothing."""
    return InputError(
        base.key, "the model that the SFT checkpoint started from", got, f"set {base.key} to the model before SFT"
    )


def _check_architecture(base: Checkpoint, sft: Checkpoint) -> None:
    entries = [(entry, base.config.get(entry), sft.config.get(entry)) for entry in ("model_type", "architectures")]
    entries += [(entry, of_text(base, entry), of_text(sft, entry)) for entry in _GEOMETRY]
    for entry, ours, theirs in entries:
        if ours is not None and theirs is not None and ours != theirs:
            raise InputError(
                base.key,
                f"the architecture of {sft.key} ({entry} {theirs!r})",
                f"{entry} {ours!r}",
                f"set {base.key} to the very model that the SFT checkpoint started from",
            )


def _base_names(base: Checkpoint, sft: Checkpoint) -> dict[str, str]:
    tied = _tied(base, sft)
    # Once: a checkpoint has tens of thousands of names, and of another model all are missing.
    modules = {_top(name) for name in base.tensors}
    names, missing = {}, []
    for name in sft.tensors:
        partner = name if name in base.tensors else _partner(name, base) if tied else None
        if partner is None and (_is_extra_head(name, modules) or is_computed(name, sft.tensors[name].shape)):
            continue
        if partner is None:
            missing.append(name)
        else:
            names[name] = partner
    used = set(names.values()) | set(sft.tensors)
    extra = [name for name in base.tensors if name not in used and not (tied and _partner(name, sft) in sft.tensors)]
    # transformers passes over them when it loads, and so does not save them.
    extra = [name for name in extra if not is_prediction(sft, name) and not is_computed(name, base.tensors[name].shape)]
    for lacking, having, absent in ((base, sft, missing), (sft, base, extra)):
        if absent:
            raise InputError(
                lacking.key,
                f"the tensors of {having.key} ({having.root})",
                f"a checkpoint without {absent[0]}{_and_more(absent[1:])}",
                f"give checkpoints of one model, saved alike: {lacking.root} is another model or incomplete",
            )
    return names


def _is_extra_head(name: str, modules: set[str]) -> bool:
    """Whether a tensor that the base, of these modules, does not have is of one beside: ``v_head.summary.weight``."""
    return _top(name) not in modules and module_of(name) not in HEADS + EMBEDDINGS


def _top(name: str) -> str:
    """The outermost module of a tensor: ``model`` of ``model.norm.weight``."""
    return name.partition(".")[0]


def _tied(base: Checkpoint, sft: Checkpoint) -> bool:
    """Whether input and output embeddings are one tensor. A flag that config.json leaves out agrees with any."""
    flags = {side.key: of_text(side, "tie_word_embeddings") for side in (base, sft)}
    for key, flag in flags.items():
        if flag is not None and not isinstance(flag, bool):
            raise InputError(key, "true or false for tie_word_embeddings in config.json", repr(flag), "correct it")
    stated = {flag for flag in flags.values() if flag is not None}
    if len(stated) > 1:
        raise InputError(
            base.key,
            f"tie_word_embeddings {flags[sft.key]} as in {sft.key}",
            f"{flags[base.key]}",
            "save both checkpoints with the same tie_word_embeddings in config.json",
        )
    return stated != {False}


def twins(checkpoint: Checkpoint) -> dict[str, str]:
    """By the name of an output embedding, the input embedding that it is tied to, if both are stored. A loader may take
    either, or, if they differ, not tie them at all."""
    if of_text(checkpoint, "tie_word_embeddings") is not True:
        return {}
    return {name: other for name in checkpoint.tensors if is_head(name) and (other := _partner(name, checkpoint))}


def of_text(checkpoint: Checkpoint, entry: str) -> Any:
    """An entry of config.json about the language model; multimodal ones keep it in their ``text_config``."""
    value = checkpoint.config.get(entry)
    if value is None and isinstance(text := checkpoint.config.get("text_config"), dict):
        value = text.get(entry)
    return value


def _partner(name: str, checkpoint: Checkpoint) -> str | None:
    """The tied partner of an embedding or head ``name`` in ``checkpoint``, if there is exactly one."""
    module = module_of(name)
    kinds = EMBEDDINGS if module in HEADS else HEADS if module in EMBEDDINGS else ()
    if not kinds:
        return None
    found = [other for other in checkpoint.tensors if other.endswith(".weight") and module_of(other) in kinds]
    return found[0] if len(found) == 1 and name.endswith(".weight") else None


def _check_shapes(
    base: Checkpoint, sft: Checkpoint, names: dict[str, str], grown_vocabulary: str, grown_key: str
) -> None:
    wrong = []
    for name, base_name in names.items():
        ours, theirs = base.tensors[base_name], sft.tensors[name]
        if ours.shape != theirs.shape:
            wrong.append((name, ours.shape, theirs.shape))
        elif (ours.dtype in FLOATING) != (theirs.dtype in FLOATING):
            raise InputError(
                base.key,
                f"{name} in a floating-point dtype or not, as in {sft.key} ({theirs.dtype})",
                ours.dtype,
                f"set {base.key} to the very model that the SFT checkpoint started from",
            )
    if not wrong:
        return
    if _only_vocabulary(wrong):
        if grown_vocabulary == "keep":
            return
        rows, sft_rows = wrong[0][1][0], wrong[0][2][0]
        raise InputError(
            base.key,
            f"the vocabulary of {sft.key}, {sft_rows} rows in {wrong[0][0]}",
            f"{rows} rows",
            f"set {grown_key} to keep: rows that only the SFT checkpoint has then stay as they are",
        )
    name, shape, sft_shape = wrong[0]
    raise InputError(
        base.key,
        f"shape {list(sft_shape)} for {name}, as in {sft.key}",
        f"{list(shape)}{_and_more([w[0] for w in wrong[1:]])}",
        f"set {base.key} to the very model that the SFT checkpoint started from",
    )


def _only_vocabulary(wrong: list[tuple[str, tuple[int, ...], tuple[int, ...]]]) -> bool:
    sizes = {(ours[:1], theirs[:1]) for _, ours, theirs in wrong}
    return len(sizes) == 1 and all(
        module_of(name) in EMBEDDINGS + HEADS and ours and theirs and ours[1:] == theirs[1:]
        for name, ours, theirs in wrong
    )


def is_head(name: str) -> bool:
    """Whether a tensor belongs to the output embedding."""
    return module_of(name) in HEADS


def is_prediction(checkpoint: Checkpoint, name: str) -> bool:
    """Whether a tensor belongs to multi-token prediction: modules named so, or layers beyond the model's own."""
    layer, layers = re.search(r"\blayers\.(\d+)\.", name), of_text(checkpoint, "num_hidden_layers")
    return bool(_PREDICTION.search(name) or (layer and layers and int(layer[1]) >= layers))


def is_computed(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a buffer that a model computes when it is built, so that loaders pass over what an old
    checkpoint has stored of it: rotary frequencies (Llama 2), causal masks and their fill value (GPT-NeoX, GPT-2)."""
    return name.endswith("rotary_emb.inv_freq") or (bool(_MASK.search(name)) and len(shape) in (0, 4))


def module_of(name: str) -> str:
    """The last part of a tensor's name but one: ``lm_head`` of ``lm_head.weight``."""
    return name.rpartition(".")[0].rpartition(".")[2]


@lru_cache(maxsize=1)
def layer_group(name: str) -> str:
    """The part of the model that a tensor's drift is reported under: its decoder layer, or else its module.

    ``model.layers.3.mlp.up_proj.weight`` -> ``model.layers.3``; ``lm_head.weight`` -> ``lm_head``.
    """
    layer = re.match(r"(?:[^.]+\.)*?\d+(?=\.)", name)
    return layer.group() if layer else name.rpartition(".")[0] or name


def _and_more(rest: Iterable[str]) -> str:
    count = len(list(rest))
    return f" (and {count} more {'tensor' if count == 1 else 'tensors'})" if count else ""
