# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What monitors leave of RL runs, made up: 40 steps, 6 layers, a probe every 10, a validation before and every 5."""

import math
import random
from pathlib import Path

from rejuv_plugin.monitors.alarms import Alarms
from rejuv_plugin.monitors.history import ALARMS, PLASTICITY, History, step_record
from rejuv_plugin.monitors.metric import Metric
from rejuv_plugin.monitors.monitor import Values

LAYERS = 6
VALIDATION = "val-core/nav_in/acc/mean@8"

CATALOGUE = tuple(
    Metric(name, meaning, unit, healthy, "a pass over logits", reduction, source)
    for name, meaning, unit, healthy, reduction, source in (
        ("entropy", "token entropy of the policy", "nats, >= 0", "above 0.18 at start", "mean over response tokens",
         "arXiv 2606.18487"),
        ("entropy_drop", "1 - entropy / entropy at start", "share, <= 1", "below 0.5 by step 150",
         "ratio of means", "arXiv 2606.18487"),
        ("top1", "mass of the likeliest token", "share, 0 to 1", "no threshold is known", "mean over tokens", "ours"),
        ("update_ratio", "size of an update against the weights", "ratio, >= 0", "steady", "ratio of L2 norms",
         "arXiv 2606.09932"),
        ("grad_norm", "gradient norm", "L2 norm", "says nothing alone", "L2 over parameters", "ours"),
        ("changed_bits", "share of bf16 weights that changed", "share, 0 to 1", "above 1e-4", "mean", "ours"),
        ("drift_base", "distance from the base model", "relative L2", "no level is known", "ratio of norms", "ours"),
        ("pass_rate", "share of right answers", "share, 0 to 1", "away from 0 and 1", "mean", "arXiv 2606.18487"),
        ("pass_rate_floor", "1 - 2^(-1/g)", "share, 0 to 1", "below the pass rate", "constant", "arXiv 2606.18487"),
        ("zero_advantage_groups", "prompts without advantage", "share, 0 to 1", "below 0.5", "mean", "ours"),
        ("probe/redo_p05", "5th percentile of ReDo scores", "1, >= 0", "no threshold is known", "per layer", "ReDo"),
        ("probe/grama_dormant_0.025", "dormant neurons by GraMa", "share, 0 to 1", "steady", "per layer", "GraMa"),
        ("probe/effective_rank", "rank of the residual stream", "1, >= 1", "no level is known", "per layer", "RankMe"),
    )
)  # fmt: skip


def steps_of(seed: int, start_entropy: float, gain: float, steps: int = 40, layers: int = LAYERS):
    """Step, metrics by full name, layers by full name: a run that starts with that entropy and gains that reward."""
    chance = random.Random(seed)

    def noise(size: float) -> float:
        return chance.gauss(0.0, size)

    for step in range(1, steps + 1):
        done = 1 - math.exp(-3 * step / steps)
        reward = min(1.0, max(0.0, 0.3 + gain * done + noise(0.03)))
        entropy = max(0.005, start_entropy * (1 - 0.35 * done) + noise(0.01))
        numbers = {
            "entropy": entropy,
            "entropy_drop": 1 - entropy / start_entropy,
            "top1": 1 - entropy / 2,
            "update_ratio": abs(6.2e-6 + noise(4e-7)),
            "changed_bits": abs(0.004 + noise(0.0005)),
            "drift_base": 0.02 + 4e-5 * step,
        }
        by_layer = {
            "grad_norm": [abs(0.05 * (1 + layer / 3) + noise(0.01)) for layer in range(layers)],
            "drift_base": [0.02 + 1e-5 * step * (layer + 1) for layer in range(layers)],
        }
        if step % 10 == 1:
            by_layer |= {
                "probe/redo_p05": [0.05 + 0.02 * layer + noise(0.004) for layer in range(layers)],
                "probe/grama_dormant_0.025": [abs(0.03 + 0.1 * done * layer / layers) for layer in range(layers)],
                "probe/effective_rank": [float("nan") if layer == 2 else 40.0 - 5 * layer for layer in range(layers)],
            }
        values = Values(numbers, by_layer)
        metrics = {f"actor/plasticity/{name}": value for name, value in values.flat().items()} | {
            "training/plasticity/pass_rate": reward,
            "training/plasticity/pass_rate_floor": 1 - 2 ** (-1 / 8),
            "training/plasticity/zero_advantage_groups": 0.5 * abs(2 * reward - 1) + 0.1,
            "critic/score/mean": reward,
            "actor/grad_norm": abs(0.3 + noise(0.03)),
            "actor/lr": 1e-6 * min(1.0, step / 5),
            "response_length/mean": 120 + noise(5),
            "timing_s/step": 6.4 + noise(0.2),
        }
        if step % 5 == 0:
            metrics[VALIDATION] = reward + noise(0.01)
        yield step, metrics, {f"actor/plasticity/{name}": row for name, row in by_layer.items()}


def write_run(directory: Path, seed: int, start_entropy: float, gain: float, **sizes: int) -> Path:
    """A run's directory as the monitors write it; returns it."""
    history, told, alarms = History(directory / PLASTICITY), History(directory / ALARMS), Alarms()
    history.add(step_record(0, {VALIDATION: 0.3}, {}))
    for step, metrics, layers in steps_of(seed, start_entropy, gain, **sizes):
        for alarm in alarms.look(step, metrics):
            told.add(alarm.to_json())
        history.add(step_record(step, metrics | alarms.metrics(), layers))
    return directory
