# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Shrink-and-perturb of a plan's matrices, a few elements at a time."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config import FusionConfig
from ..errors import InputError
from .compatible import of_text
from .layout import Checkpoint
from .patterns import key_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Perturbation:
    """What is done to a matrix besides an interpolation, or in its place."""

    towards_zero: bool
    """Shrink towards zero, not towards the base."""
    std: float
    """Standard deviation of the noise, in the unit of the weights; 0: none."""
    seed: int

    def __call__(
        self, name: str, first: int, base: "torch.Tensor", sft: "torch.Tensor", alpha: float
    ) -> "torch.Tensor":
        """`ops.perturb.shrink_and_perturb` of the flat elements from ``first`` on: ``[n]`` float64, new.

        Args:
            name: of the tensor; with the seed it decides the noise.
            first: place of the first element in the tensor.
            base: ``[n]``.
            sft: ``[n]``.
            alpha: how much of it stays.
        """
        import torch

        from ..ops.noise import normal
        from ..ops.perturb import shrink_and_perturb

        noise = None
        if self.std:
            noise = torch.from_numpy(self.std * normal(self.seed, name, first, len(sft)))
        return shrink_and_perturb(None if self.towards_zero else base, sft, alpha, noise)


def perturbation(fusion: FusionConfig, sft: Checkpoint, key: str) -> Perturbation | None:
    """What the settings ask for; None: fusion alone.

    Args:
        fusion: the settings.
        sft: the SFT checkpoint; its configuration says how wide fresh weights are spread.
        key: what comes before a setting's name in errors.

    Raises:
        InputError: noise is asked for, and the configuration does not say it.
    """
    if not fusion.perturbs:
        return None
    fresh = of_text(sft, "initializer_range")
    if fusion.noise and (not isinstance(fresh, float) or fresh <= 0.0):
        raise InputError(
            key_of(key, "noise"),
            f"initializer_range, the standard deviation of fresh weights, in {sft.root / 'config.json'}",
            repr(fresh),
            'add it, as in "initializer_range": 0.02',
        )
    std = fusion.noise * fresh if fusion.noise else 0.0
    return Perturbation(fusion.towards == "zero", std, fusion.noise_seed)
