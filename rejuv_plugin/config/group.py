# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The Hydra group ``rejuvenation``: everything that is set for a job.

Fields, their order and their defaults are the group: `integrations/verl/plugin.py` stores `defaults()`, so a new
setting is added in one file of this room only.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

from ..errors import InputError
from .checks import idle, names_of, one_of
from .monitors import MonitorsConfig
from .transform import FusionConfig, ResetConfig
from .tuning import TuningConfig

AUTO = "auto"
"""``fusion.alpha`` of a job that chooses it by measurement."""


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
    tune: TuningConfig = field(default_factory=TuningConfig)
    monitors: MonitorsConfig = field(default_factory=MonitorsConfig)

    def __post_init__(self) -> None:
        if not self.base_path:
            raise InputError(
                "base_path",
                "the base model that the SFT checkpoint started from",
                repr(self.base_path),
                "set rejuvenation.base_path to a directory or a hub name",
            )
        one_of("mode", self.mode, ("disk", "worker"))
        one_of("ref", self.ref, ("rejuvenated", "sft"))

    @property
    def tokenizes(self) -> bool:
        """Whether it needs prompts of its own: to choose alpha, to find neurons, or as the probe set."""
        probes = self.monitors.enabled and self.monitors.probe_set.data
        return bool(self.tune.enabled or self.reset.ratio or probes)


def defaults() -> dict[str, Any]:
    """The settings a user sees before setting any, as plain nested dicts (``base_path`` is None)."""
    return {f.name: _default(f) for f in dataclasses.fields(RejuvenationConfig)}


def from_mapping(values: Mapping[str, Any], root: str = "rejuvenation") -> RejuvenationConfig:
    """Build the configuration from nested mappings, as Hydra gives them.

    Raises:
        InputError: an unknown key, a value outside its range, or one of ``tune`` or ``reset`` that would do nothing
            with the others; named by its dotted key below ``root``.
    """
    settings = _build(RejuvenationConfig, _auto_as_setting(values), root)
    _refuse_idle_tuning(settings, root)
    _refuse_idle_sampling(settings.reset, f"{root}.reset")
    return settings


def _auto_as_setting(values: Any) -> Any:
    """``fusion.alpha: auto`` as ``tune.enabled: true``: everywhere else alpha is a number."""
    fusion, tune = (values.get(name) for name in ("fusion", "tune")) if isinstance(values, Mapping) else (None, None)
    if not isinstance(fusion, Mapping) or fusion.get("alpha") != AUTO or not isinstance(tune or {}, Mapping):
        return values
    others = {name: value for name, value in fusion.items() if name != "alpha"}
    return {**values, "fusion": others, "tune": {**(tune or {}), "enabled": True}}


def _refuse_idle_tuning(settings: RejuvenationConfig, root: str) -> None:
    tune, alpha, auto = settings.tune, settings.fusion.alpha, f"{root}.fusion.alpha=auto"
    if not tune.enabled:
        idle(tune, f"without {auto}", f"set {auto}", *names_of(tune, "seed", "device"), root=f"{root}.tune.")
    elif alpha != FusionConfig.alpha:
        key, fix = f"{root}.fusion.alpha", f"remove it, or {root}.tune.enabled"
        raise InputError(key, f"auto, with {root}.tune.enabled=true", repr(alpha), fix)


def _refuse_idle_sampling(reset: ResetConfig, root: str) -> None:
    """Not of the dataclass alone: what a job has sampled becomes its calibration data."""
    if reset.calibration:
        idle(reset, "with calibration data, which are all used", "drop the data", "examples", root=f"{root}.")


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
        # Hydra parses `1` as an int, and for Python a bool is one; ranges are the dataclass's own business.
        fits = isinstance(value, (*allowed, int) if float in allowed else allowed)
        if not fits or (isinstance(value, bool) and bool not in allowed):
            names = " or ".join("null" if t is type(None) else t.__name__ for t in allowed)
            raise InputError(f"{root}.{key}", names, repr(value), f"give {root}.{key} a {names}")
        kwargs[key] = value
    try:
        return cls(**kwargs)
    except InputError as error:
        # The dataclass names its field and does not know where it stands.
        raise InputError(f"{root}.{error.key}", error.expected, error.got, error.fix) from None


def _default(f: dataclasses.Field) -> Any:
    if f.default_factory is not dataclasses.MISSING:
        return dataclasses.asdict(f.default_factory())
    return f.default


_FIX_GROUP = "give +rejuvenation=default on the command line, then rejuvenation.base_path=<base model>"
