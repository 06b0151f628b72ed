# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The arms of the study: what is done to the over-trained checkpoint before RL. Data only.

Main arms answer whether the reset helps; each variant changes one setting of `fusion_reset`.
"""

from dataclasses import dataclass, field
from typing import Any

# Where the calibration pairs come from: the SFT set itself, or the SFT model's own answers to RL prompts.
DEMONSTRATIONS, SAMPLED = "demonstrations", "sampled"


@dataclass(frozen=True)
class Arm:
    """One way to start RL from the over-trained checkpoint."""

    says: str
    alpha: float = 0.5
    reset: dict[str, Any] = field(default_factory=dict)
    """Of `rejuv_plugin.config.ResetConfig`, without ``calibration``; empty: no reset."""
    calibration: str = DEMONSTRATIONS
    examples: int = 64
    """How many of the calibration pairs are used, the first ones."""
    start: str = "sft64"
    """The checkpoint it begins with. ``base``, ``sft4``: references, taken as they are."""


_RESET = {"ratio": 0.01}

MAIN = {
    "over": Arm("over-trained SFT, as it is", alpha=1.0),
    "fusion": Arm("fusion"),
    "fusion_reset": Arm("fusion + reset", reset=_RESET),
    "fusion_random": Arm("fusion + random reset of equal size", reset=_RESET | {"select": "random"}),
    "fusion_bottom": Arm("fusion + reset of the lowest scores", reset=_RESET | {"select": "bottom"}),
    "reset": Arm("reset only", alpha=1.0, reset=_RESET),
    "reset_random": Arm("random reset only", alpha=1.0, reset=_RESET | {"select": "random"}),
    "moderate": Arm("moderate SFT, as it is", start="sft4"),
    "base": Arm("base, as it is", start="base"),
}

VARIANTS = {
    "ratio_0.005": Arm("rho 0.5 %", reset={"ratio": 0.005}),
    "ratio_0.04": Arm("rho 4 %", reset={"ratio": 0.04}),
    "positions_1": Arm("N = 1 position an example", reset=_RESET | {"positions": 1}),
    "positions_32": Arm("N = 32: all positions", reset=_RESET | {"positions": 32}),
    "examples_4": Arm("4 calibration examples", reset=_RESET, examples=4),
    "sampled": Arm("calibrated on sampled answers to RL prompts", reset=_RESET, calibration=SAMPLED),
    "aggregate_0.01": Arm("aggregate rule, rho 1 %", reset=_RESET | {"rule": "aggregate"}),
    "aggregate_0.10": Arm("aggregate rule, rho 10 %", reset={"ratio": 0.1, "rule": "aggregate"}),
    "each": Arm("gradient of each kept logit alone", reset=_RESET | {"gradient": "each"}),
}

ARMS = MAIN | VARIANTS
