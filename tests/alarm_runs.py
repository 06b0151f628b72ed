# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Made-up metrics, step by step, and the alarms that they raise."""

from rejuv_plugin.monitors.alarms import Alarm, Alarms
from rejuv_plugin.monitors.rules import RULES

Metrics = dict[str, float]

ENTROPY, DROP = "actor/plasticity/entropy", "actor/plasticity/entropy_drop"
PASS, FLOOR = "training/plasticity/pass_rate", "training/plasticity/pass_rate_floor"
ZERO = "training/plasticity/zero_advantage_groups"
RATIO, NORM, RATE = "actor/plasticity/update_ratio", "actor/grad_norm", "actor/lr"
BITS = "actor/plasticity/changed_bits"
DORMANT = "actor/plasticity/probe/grama_dormant_0.025_layers/q50"


def updates(ratio: float, norm: float, rate: float = 1e-6) -> Metrics:
    return {RATIO: ratio, NORM: norm, RATE: rate}


def run(metrics: list[Metrics], alarms: Alarms | None = None, start: int = 1) -> list[Alarm]:
    alarms = alarms or Alarms()
    return [alarm for step, seen in enumerate(metrics, start) for alarm in alarms.look(step, seen)]


def rule_of(name: str):
    return next(rule for rule in RULES if rule.name == name)
