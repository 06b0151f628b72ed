# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the plasticity monitors."""

from dataclasses import dataclass, field

from ..errors import InputError
from .checks import finite, positive_int

_ON_PROBE_SET = ("probe", "neurons", "ranks", "attention", "sharpness")


@dataclass(frozen=True)
class MonitorProbeConfig:
    """The fixed set of prompts and responses that some monitors look at now and then."""

    data: str | None = None
    """Parquet or jsonl file of ``prompt`` and ``response``, or of chat ``messages``, that is not trained on. Default:
    ``reset.calibration``; without either, the monitors that need it are off, which is said once."""

    examples: int = 16
    """Of the file, from its beginning."""

    max_tokens: int = 1024
    """Longer dialogues are cut here."""

    every: int = 10
    """Steps between two looks."""

    def __post_init__(self) -> None:
        positive_int(self, "examples", "max_tokens", "every")


@dataclass(frozen=True)
class MonitorsConfig:
    """Plasticity monitors. Each can be turned off; none changes training."""

    enabled: bool = True
    """All of them."""

    tokens: bool = True
    """Token entropy and top-1 mass of the policy on the batch that it is updated with, every step."""

    gradients: bool = True
    """Gradient norms by layer, every step."""

    weights: bool = True
    """Update-to-weight ratio, drift from base and from the start, and the share of weights whose bits changed, every
    step, on a sample of the weights that go to the rollout."""

    groups: bool = True
    """Pass rate and share of prompts without an advantage, every step."""

    pass_score: float = 0.5
    """An answer passes with a score above it: right for scores of 0 and 1, and of -1 and 1."""

    probe: bool = True
    """Entropy and likelihood of the probe set's responses."""

    neurons: bool = True
    """ReDo and GraMa scores of the MLP neurons on the probe set."""

    ranks: bool = True
    """Effective, threshold and stable rank of the residual stream on the probe set."""

    attention: bool = True
    """Attention entropy of a few queries on the probe set."""

    sharpness: bool = False
    """Critical sharpness of the probe set's loss along the update of a step: 8 to 17 passes over the probe set, and
    copies of the weights on the host."""

    alarms: bool = True
    """Rules over these metrics: four lines on the console, one when an alarm ends; a metric of 0 or 1; an entry in
    ``alarms.jsonl``."""

    stop_on_alarm: bool = False
    """Make the step after an alarm the last one, and save it."""

    per_layer: bool = False
    """Log every layer's values too, not only their quantiles. ``plasticity.jsonl`` always has them."""

    sample: int = 4096
    """Weights of each tensor that ``weights`` looks at; all of a smaller one, at least 64 of each expert's."""

    probe_set: MonitorProbeConfig = field(default_factory=MonitorProbeConfig)

    @property
    def on_probe_set(self) -> tuple[str, ...]:
        """Switches that are on of monitors that look at the probe set."""
        return tuple(name for name in _ON_PROBE_SET if getattr(self, name))

    def __post_init__(self) -> None:
        positive_int(self, "sample")
        finite(self, "pass_score")
        if self.stop_on_alarm and not (self.enabled and self.alarms):
            raise InputError("stop_on_alarm", "false without alarms", "true", "turn monitors.alarms on")
