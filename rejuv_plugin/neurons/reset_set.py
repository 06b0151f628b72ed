# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The reset set S: which neurons are pulled back to the base, whatever omega and alpha they are then used with."""

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from .modules import Module

# Of the file; a set of another format is refused.
FORMAT = 1
# The path of a decoder layer, and the last part of the module's.
_PLACE = re.compile(r"^(.*?\.\d+)\.(?:.*\.)?([^.]+)$")
_AGAIN = "make it again with rejuv apply --calibration ... --save-reset-set"


@dataclass(frozen=True)
class Chosen:
    """The neurons of one module."""

    kind: str
    """``row`` or ``column``; see `architectures`."""
    count: int
    """Number of neurons of the module."""
    indices: tuple[int, ...]
    """The neurons to reset, ascending, each in ``[0, count)``."""


@dataclass(frozen=True)
class ResetSet:
    """Neurons by module (arXiv 2606.09932 v1, Eq. 4), and where they come from."""

    model_type: str
    modules: Mapping[str, Chosen]
    """By `Module.name`; modules without a neuron in the set are listed too, for their share is known to be 0."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The settings of the selection."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Hexadecimal SHA-256 of the base, its config, the SFT checkpoint and the calibration file."""
    statistics: Mapping[str, Any] = field(default_factory=dict)
    """What the probe measured; see `probe.measure`."""

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of what decides the output's bytes: the neurons, not how they were found."""
        content = {name: [c.kind, c.count, *c.indices] for name, c in self.modules.items() if c.indices}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "model_type": self.model_type,
            "digest": self.digest,
            "settings": dict(self.settings),
            "inputs": dict(self.inputs),
            "statistics": dict(self.statistics),
            "modules": {
                name: {"kind": c.kind, "count": c.count, "indices": list(c.indices)} for name, c in self.modules.items()
            },
        }


def from_json(content: Any, key: str) -> ResetSet:
    """Rebuild a set from what `ResetSet.to_json` gives.

    Raises:
        InputError: named ``key``; not a set of this format, or one that was edited by hand.
    """
    try:
        if "tensors" in content:
            fix = "give the file that --save-reset-set wrote"
            raise InputError(key, "a reset set", "the manifest of a checkpoint (rejuvenation.json)", fix)
        if content["format"] != FORMAT:
            raise InputError(key, f"a reset set of format {FORMAT}", f"format {content['format']!r}", _AGAIN)
        modules = {
            name: Chosen(entry["kind"], entry["count"], tuple(entry["indices"]))
            for name, entry in content["modules"].items()
        }
        for name, c in modules.items():
            if not _is_sorted_within(c.indices, c.count):
                raise InputError(key, f"ascending indices below {c.count!r} for {name}", "others", _AGAIN)
        found = ResetSet(content["model_type"], modules, content["settings"], content["inputs"], content["statistics"])
        if found.digest != content["digest"]:
            raise InputError(key, f"neurons with the digest {content['digest']}", f"{found.digest}", _AGAIN)
    except (LookupError, TypeError, AttributeError) as error:
        raise InputError(key, "a reset set", "something else", _AGAIN) from error
    return found


def check_fits(reset_set: ResetSet, modules: Sequence[Module], key: str) -> None:
    """Check that a set names neurons of these modules.

    Raises:
        InputError: named ``key``; a module that is not there, or has another kind or number of neurons.
    """
    known = {module.name: module for module in modules}
    for name, c in reset_set.modules.items():
        module = known.get(name)
        if module is None or (module.kind, module.count) != (c.kind, c.count):
            has = f"{module.count} {module.kind}s" if module else "no such module"
            raise InputError(key, f"neurons of this model, which has {has} in {name}", f"{c.count} {c.kind}s", _AGAIN)


def shares(reset_set: ResetSet, groups: Mapping[str, str] | None = None) -> dict[str, float]:
    """Share of neurons in the set, in [0, 1], by group: sums of neurons over sums of neurons, never a mean of shares.

    Args:
        reset_set: the set.
        groups: the group of each module by its name; by default each module is its own.
    """
    totals: dict[str, list[int]] = {}
    for name, c in reset_set.modules.items():
        total = totals.setdefault(groups[name] if groups else name, [0, 0])
        total[0] += len(c.indices)
        total[1] += c.count
    return {group: chosen / of if of else 0.0 for group, (chosen, of) in totals.items()}


def grid(reset_set: ResetSet) -> dict[str, dict[str, float]]:
    """Share of neurons in the set, in [0, 1], by decoder layer and kind of module; the experts of a layer are summed.

    ``{"model.layers.0": {"q_proj": 0.02, ...}, ...}``, in the order of the set.
    """
    # A blank cannot be in a module's name.
    places = {name: _PLACE.sub(r"\1 \2", name) for name in reset_set.modules}
    found: dict[str, dict[str, float]] = {}
    for place, share in shares(reset_set, places).items():
        layer, kind = place.split(" ")
        found.setdefault(layer, {})[kind] = share
    return found


def difference(ours: ResetSet, theirs: ResetSet) -> dict[str, dict[str, Any]]:
    """By module: ``only_ours`` and ``only_theirs`` (ascending indices) and their `jaccard`."""
    found = {}
    for name in dict.fromkeys((*ours.modules, *theirs.modules)):
        a, b = (set(s.modules[name].indices) if name in s.modules else set() for s in (ours, theirs))
        found[name] = {
            "only_ours": sorted(a - b),
            "only_theirs": sorted(b - a),
            "jaccard": jaccard(a, b),
        }
    return found


def jaccard(ours: set[int], theirs: set[int]) -> float:
    """``|both| / |either|``, 1 for two empty sets."""
    return len(ours & theirs) / len(ours | theirs) if ours | theirs else 1.0


def _is_sorted_within(indices: tuple[int, ...], count: int) -> bool:
    within = all(type(i) is int and 0 <= i < count for i in indices)
    return within and all(a < b for a, b in itertools.pairwise(indices))
