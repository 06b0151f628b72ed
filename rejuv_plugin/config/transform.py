# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the two steps of Rejuvenation."""

import math
from dataclasses import dataclass
from functools import cached_property

from ..errors import InputError
from .checks import DEVICES, idle, is_number, names_of, one_of, positive_int, seeds


@dataclass(frozen=True)
class FusionConfig:
    """Base-anchored fusion, Eq. 1 of arXiv 2606.09932: ``alpha * sft + (1 - alpha) * base``."""

    alpha: float = 0.5
    """Weight of the SFT checkpoint, in [0, 1]: 1 is the SFT checkpoint bit for bit, 0 the base (cast, should the SFT
    checkpoint have another dtype). The paper's default is 0.5 and it sweeps 0.40 to 0.60; smaller favours
    out-of-distribution tasks, larger in-distribution ones."""

    alpha_of: str = ""
    """Tensors with an alpha of their own: shell patterns of their names, ``"model.layers.2?.*:0.3 *.k_proj.*:0.2"``; of
    those that match a tensor the last counts. Not in the paper."""

    only_tensors: str = "*"
    """Tensors to fuse: shell patterns separated by white space. All others keep the SFT checkpoint's bits."""

    exclude_tensors: str = ""
    """Tensors to leave out, as ``only_tensors``: they keep the SFT checkpoint's bits."""

    grown_vocabulary: str = "refuse"
    """What to do when embeddings have other numbers of rows: ``refuse``, or ``keep`` the rows that only the SFT
    checkpoint has as they are there, and fuse the others."""

    towards: str = "base"
    """What matrices shrink towards: ``base``; or ``zero``, ``alpha * sft``, as shrink-and-perturb does (arXiv
    1910.08475), where norms and biases, which are vectors, keep the SFT checkpoint's bits. Not in the paper."""

    noise: float = 0.0
    """Standard deviation of Gaussian noise that is added to the fused matrices, over that of fresh ones
    (``initializer_range`` of config.json). 0 is none; shrink-and-perturb adds it. Not in the paper."""

    noise_seed: int = 0
    """Of the noise, and of what ``dare`` drops."""

    method: str = "linear"
    """``linear``: fusion; or ``base + alpha * changes`` with fewer of the changes that SFT made, by mergekit (extra
    ``merge``): ``ties``, the largest of each tensor, or ``dare``, some at random and scaled up. Not in the paper."""

    density: float = 0.2
    """Share of the changes that ``ties`` and ``dare`` keep, above 0 and up to 1."""

    def __post_init__(self) -> None:
        if not is_number(self.alpha) or not 0.0 <= self.alpha <= 1.0:
            raise InputError(
                "alpha",
                "a number in [0, 1]",
                repr(self.alpha),
                "use 0.5, or a value of the paper's sweep (0.40 to 0.60)",
            )
        one_of("grown_vocabulary", self.grown_vocabulary, ("refuse", "keep"))
        one_of("towards", self.towards, ("base", "zero"))
        if not is_number(self.noise) or not 0.0 <= self.noise < math.inf:
            raise InputError("noise", "a number, at least 0", repr(self.noise), "use 0.1: a tenth of fresh weights")
        one_of("method", self.method, ("linear", "ties", "dare"))
        if self.method != "linear" and self.perturbs:
            raise InputError("method", "linear with noise or towards", self.method, "one at a time")
        if not is_number(self.density) or not 0.0 < self.density <= 1.0:
            raise InputError("density", "a number above 0 and up to 1", repr(self.density), "use 0.2")
        if self.method == "linear":
            idle(self, "with method linear", "use method ties or dare", "density")
        seeds(self, "noise_seed")
        _ = self.alphas
        # An int (Hydra parses `1` as one) would make an otherwise equal configuration hash differently.
        for name in ("alpha", "noise", "density"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def perturbs(self) -> bool:
        """Whether matrices are shrunk towards zero or get noise."""
        return self.towards != "base" or self.noise > 0.0

    @property
    def alternative(self) -> str | None:
        """The setting that makes it anything but an interpolation, if one does."""
        found = ("noise", self.noise > 0.0), ("towards", self.towards != "base"), ("method", self.method != "linear")
        return next((name for name, differs in found if differs), None)

    @cached_property
    def alphas(self) -> tuple[tuple[str, float], ...]:
        """The patterns of ``alpha_of`` with their alphas, in their order."""
        return tuple(map(_pattern_and_alpha, self.alpha_of.split()))


def _pattern_and_alpha(entry: str) -> tuple[str, float]:
    pattern, _, number = entry.rpartition(":")
    try:
        alpha = float(number)
    except ValueError:
        alpha = -1.0
    if not pattern or not 0.0 <= alpha <= 1.0:
        raise InputError(
            "alpha_of", "PATTERN:ALPHA, separated by blanks, ALPHA in [0, 1]", repr(entry), 'as in "*.k_proj.*:0.2"'
        )
    return pattern, alpha


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
    """Largest share of a module that may be reset, above 0; a larger union keeps the neurons that most positions voted
    for."""

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
            if not is_number(value) or not 0.0 <= value <= 1.0:
                raise InputError(name, "a number in [0, 1]", repr(value), f"use {_SUGGESTED[name]}")
            object.__setattr__(self, name, float(value))
        if not self.cap:
            raise InputError("cap", "a number above 0 and up to 1", "0.0: no neuron", f"use {_SUGGESTED['cap']}")
        positive_int(self, "examples", "max_tokens", "positions")
        seeds(self, "seed")
        one_of("gradient", self.gradient, ("sum", "each"))
        one_of("device", self.device, DEVICES)
        one_of("rule", self.rule, ("union", "aggregate"))
        one_of("select", self.select, ("top", "bottom", "random"))
        one_of("ranking", self.ranking, ("absolute", "signed"))
        # These two say more than what `idle` would say of them.
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
        if not self.wanted:
            idle(self, "without a reset", "set a ratio or a set", *names_of(self, *_ALWAYS))
        elif self.set_path:
            selected = names_of(self, "set_path", "omega", *_ALWAYS)
            idle(self, "with a set, which was selected already", "set a ratio in its place", *selected)

    @property
    def wanted(self) -> bool:
        """Whether anything is to be reset."""
        return bool(self.ratio or self.set_path)


_ALWAYS = ("seed", "device")
"""What may be given where it does nothing: by who sweeps over seeds, and by a machine's own scripts."""

_SUGGESTED = {"ratio": "0.01, as the paper does", "omega": "1.0, as the paper does", "cap": "1.0: no cap"}
