# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The settings of one rejuvenation: plain dataclasses, shared by the console command and the Hydra group.

The fields, their order and their defaults here are the Hydra group ``rejuvenation``:
`integrations/verl/plugin.py` stores `defaults()`, so a new setting is added in this file only.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

from .errors import InputError


@dataclass(frozen=True)
class FusionConfig:
    """Base-anchored fusion, Eq. 1 of arXiv 2606.09932: ``alpha * sft + (1 - alpha) * base``."""

    alpha: float = 0.5
    """Weight of the SFT checkpoint, in [0, 1]: 1 is the SFT checkpoint bit for bit, 0 the base (cast, should the SFT
    checkpoint have another dtype). The paper's default is 0.5 and it sweeps 0.40 to 0.60; smaller favours
    out-of-distribution tasks, larger in-distribution ones."""

    only_tensors: str = "*"
    """Tensors to fuse: shell patterns separated by white space. All others keep the SFT checkpoint's bits."""

    exclude_tensors: str = ""
    """Tensors to leave out, as ``only_tensors``: they keep the SFT checkpoint's bits."""

    grown_vocabulary: str = "refuse"
    """What to do when embeddings have other numbers of rows: ``refuse``, or ``keep`` the rows that only the SFT
    checkpoint has as they are there, and fuse the others."""

    def __post_init__(self) -> None:
        if not isinstance(self.alpha, (int, float)) or isinstance(self.alpha, bool) or not 0.0 <= self.alpha <= 1.0:
            raise InputError(
                "alpha",
                "a number in [0, 1]",
                repr(self.alpha),
                "use 0.5, or a value of the paper's sweep (0.40 to 0.60)",
            )
        _one_of("grown_vocabulary", self.grown_vocabulary, ("refuse", "keep"))
        # An int (Hydra parses `1` as one) would make an otherwise equal configuration hash differently.
        object.__setattr__(self, "alpha", float(self.alpha))


@dataclass(frozen=True)
class ResetConfig:
    """Attribution-guided neuron reset, Eq. 2 to 5 of arXiv 2606.09932; off while ``ratio`` is 0 and there is no set.

    The paper does not say how many positions it keeps, how it ranks, or what it calibrates on: these are settings.
    """

    ratio: float = 0.0
    """Share of each module's neurons taken at each position, in [0, 1]; their union over positions is larger. 0 is
    off. The paper's default is 0.01 and it sweeps 0.005 to 0.04, where 0.04 starts to erase what SFT taught."""

    omega: float = 1.0
    """Weight of the base on the neurons of the set, in [0, 1]: 1 is the base bit for bit, 0 is fusion alone."""

    calibration: str | None = None
    """Parquet or jsonl file of ``prompt`` and ``response``, or of chat ``messages``, where the trainer sees it. Without
    one a verl job samples answers of the SFT checkpoint to prompts of ``data.train_files``, drawn at random."""

    examples: int = 64
    """Number of answers to sample when there is no calibration file."""

    max_tokens: int = 8192
    """Longer dialogues are cut here, so that memory is bounded."""

    positions: int = 8
    """Response positions kept for each calibration example: those where SFT moved the entropy most."""

    gradient: str = "sum"
    """Rows are scored by the gradient of the ``sum`` of an example's kept logits, in one backward pass, or of ``each``
    kept logit alone, in one pass a position."""

    rule: str = "union"
    """``union`` of the top ratio at each position (the paper), or ``aggregate``: the top ratio by the mean score."""

    cap: float = 1.0
    """Largest share of a module that may be reset; a larger union keeps the neurons that most positions voted for."""

    select: str = "top"
    """``top``, or a control of equal size in each module: ``bottom`` or ``random``."""

    ranking: str = "absolute"
    """Rank scores by magnitude, or ``signed``: by value, those that support the target first."""

    include: str = "*"
    """Modules to score: shell patterns separated by white space, ``"*.k_proj *.v_proj"``."""

    exclude: str = ""
    """Modules to leave out, as ``include``."""

    seed: int = 0
    """Of the ``random`` control."""

    device: str = "auto"
    """Where the models run while the neurons are found: ``cpu``, ``cuda``, or ``auto``: a GPU if there is one."""

    set_path: str | None = None
    """A reset set made earlier (``rejuv apply --save-reset-set``), in place of a calibration."""

    def __post_init__(self) -> None:
        for name in _SUGGESTED:
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0.0 <= value <= 1.0:
                raise InputError(name, "a number in [0, 1]", repr(value), f"use {_SUGGESTED[name]}")
            object.__setattr__(self, name, float(value))
        for name in ("examples", "max_tokens", "positions"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                default = type(self).__dataclass_fields__[name].default
                raise InputError(name, "a whole number above 0", repr(value), f"use {default}")
        _one_of("gradient", self.gradient, ("sum", "each"))
        _one_of("device", self.device, ("auto", "cpu", "cuda"))
        _one_of("rule", self.rule, ("union", "aggregate"))
        _one_of("select", self.select, ("top", "bottom", "random"))
        _one_of("ranking", self.ranking, ("absolute", "signed"))
        if self.set_path and (self.calibration or self.ratio):
            raise InputError(
                "set_path",
                "no calibration and ratio 0 beside a set, which was selected already",
                f"calibration {self.calibration!r} and ratio {self.ratio:g}",
                "drop one of the two",
            )
        if self.calibration and not self.ratio:
            raise InputError(
                "ratio", "a ratio above 0 with calibration data", "0", "use 0.01, as the paper does, or drop the data"
            )

    @property
    def wanted(self) -> bool:
        """Whether anything is to be reset."""
        return bool(self.ratio or self.set_path)


@dataclass(frozen=True)
class RejuvenationConfig:
    """Everything under the Hydra key ``rejuvenation``."""

    base_path: str | None = None
    """The base model the SFT checkpoint started from: a directory of safetensors or a hub name."""

    mode: str = "disk"
    """``disk``: write one new HF checkpoint before the workers start, and train from it. ``worker``: write nothing;
    each worker loads the same weights where it would have loaded the SFT checkpoint's, for models that fit no single
    device and clusters without a shared disk."""

    ref: str = "rejuvenated"
    """What the KL reference is: ``rejuvenated`` (the actor's own start, as in the paper) or ``sft``."""

    critic: bool = False
    """Start the critic from the rejuvenated checkpoint too. By default it keeps ``critic.model.path``."""

    cache_dir: str | None = None
    """Where rejuvenated checkpoints are kept, one directory per content; a disk all nodes see. Default:
    ``<trainer.default_local_dir>/rejuvenated``. In worker mode it holds digests and reset sets alone."""

    fusion: FusionConfig = field(default_factory=FusionConfig)
    reset: ResetConfig = field(default_factory=ResetConfig)

    def __post_init__(self) -> None:
        if not self.base_path:
            raise InputError(
                "base_path",
                "the base model that the SFT checkpoint started from",
                repr(self.base_path),
                "set rejuvenation.base_path to a directory or a hub name",
            )
        _one_of("mode", self.mode, ("disk", "worker"))
        _one_of("ref", self.ref, ("rejuvenated", "sft"))


def defaults() -> dict[str, Any]:
    """The settings a user sees before setting any, as plain nested dicts (``base_path`` is None)."""
    return {f.name: _default(f) for f in dataclasses.fields(RejuvenationConfig)}


def from_mapping(values: Mapping[str, Any], root: str = "rejuvenation") -> RejuvenationConfig:
    """Build the configuration from nested mappings, as Hydra gives them.

    Raises:
        InputError: an unknown key, or a value outside its range; named by its dotted key below ``root``.
    """
    return _build(RejuvenationConfig, values, root)


def _build(cls: Any, values: Any, root: str) -> Any:
    known = get_type_hints(cls)
    if not isinstance(values, Mapping):
        raise InputError(root, f"a group with the keys {', '.join(known)}", repr(values), _FIX_GROUP)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            fix = f"did you mean {root}.{near[0]}?" if near else f"remove it from {root}"
            raise InputError(f"{root}.{key}", f"one of the keys {', '.join(known)}", "an unknown key", fix)
    kwargs = {}
    for key, value in values.items():
        hint = known[key]
        if dataclasses.is_dataclass(hint):
            kwargs[key] = _build(hint, value, f"{root}.{key}")
            continue
        allowed = get_args(hint) or (hint,)
        # Hydra parses `1` as an int; ranges are the dataclass's own business.
        if not isinstance(value, (*allowed, int) if float in allowed else allowed):
            names = " or ".join("null" if t is type(None) else t.__name__ for t in allowed)
            raise InputError(f"{root}.{key}", names, repr(value), f"give {root}.{key} a {names}")
        kwargs[key] = value
    try:
        return cls(**kwargs)
    except InputError as error:
        # The dataclass names its field and does not know where it stands.
        raise InputError(f"{root}.{error.key}", error.expected, error.got, error.fix) from None


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(key, " or ".join(allowed), repr(value), f"use {allowed[0]}")


def _default(f: dataclasses.Field) -> Any:
    if f.default_factory is not dataclasses.MISSING:
        return dataclasses.asdict(f.default_factory())
    return f.default


_FIX_GROUP = "give +rejuvenation=default on the command line, then rejuvenation.base_path=<base model>"
_SUGGESTED = {"ratio": "0.01, as the paper does", "omega": "1.0, as the paper does", "cap": "1.0: no cap"}
