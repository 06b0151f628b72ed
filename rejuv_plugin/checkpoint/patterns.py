# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What the patterns of the settings say of each tensor: whether it is fused, and with which alpha."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from ..config import FusionConfig
from ..errors import InputError
from .layout import Checkpoint

_FIX = "see rejuv apply --dry-run --json"


def chosen_tensors(fusion: FusionConfig, sft: Checkpoint, tied: Mapping[str, str], key: str) -> set[str]:
    """The tensors that ``only_tensors`` and ``exclude_tensors`` leave to be fused.

    Args:
        fusion: the settings.
        sft: the SFT checkpoint.
        tied: see `compatible.twins`.
        key: what comes before a setting's name in errors.

    Raises:
        InputError: a pattern matches nothing, nothing is left, or one of two tensors that are tied.
    """
    found = {}
    for setting in ("only_tensors", "exclude_tensors"):
        patterns = getattr(fusion, setting).split()
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in sft.tensors):
                raise InputError(key_of(key, setting), f"patterns that match tensors of {sft.key}", repr(pattern), _FIX)
        found[setting] = {name for name in sft.tensors if any(fnmatchcase(name, pattern) for pattern in patterns)}
    chosen = found["only_tensors"] - found["exclude_tensors"]
    if not chosen:
        raise InputError(
            key_of(key, "only_tensors"), "patterns that leave something to fuse", "none left", "exclude less"
        )
    for pair in tied.items():
        if len(chosen.intersection(pair)) == 1:
            setting = "exclude_tensors" if found["exclude_tensors"].intersection(pair) else "only_tensors"
            raise InputError(
                key_of(key, setting),
                f"patterns for both or neither of {pair[0]} and {pair[1]}, which are tied",
                "one of them",
                "give both names",
            )
    return chosen


def alpha_of_each(names: Iterable[str], fusion: FusionConfig, tied: Mapping[str, str], key: str) -> dict[str, float]:
    """The alpha of each tensor that is fused: the last pattern of ``alpha_of`` that matches, or else ``alpha``.

    Args:
        names: of the tensors that are fused.
        fusion: the settings.
        tied: as in `chosen_tensors`.
        key: as in `chosen_tensors`.

    Raises:
        InputError: a pattern matches none of ``names``, or one of two tensors that are tied.
    """
    alphas = dict.fromkeys(names, fusion.alpha)
    for pattern, alpha in fusion.alphas:
        # A name is its own pattern, and there may be thousands: see `rejuv alphas`.
        matching = [pattern] if pattern in alphas else [name for name in alphas if fnmatchcase(name, pattern)]
        if not matching:
            raise InputError(
                key_of(key, "alpha_of"), "patterns that match tensors which are fused", repr(pattern), _FIX
            )
        alphas.update(dict.fromkeys(matching, alpha))
    for name, other in tied.items():
        if name in alphas and other in alphas and alphas[name] != alphas[other]:
            raise InputError(
                key_of(key, "alpha_of"),
                f"one alpha for {name} and {other}, which are tied",
                f"{alphas[name]} and {alphas[other]}",
                "give both the same",
            )
    return alphas


def key_of(prefix: str, setting: str) -> str:
    """How errors name a setting: an option of the console command, or a configuration key."""
    return prefix + (setting.replace("_", "-") if prefix == "--" else setting)
