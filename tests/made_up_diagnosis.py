# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""A metrics.json and a tuning.json, made up: what the page's tests draw. Nothing in it was measured.

The shapes are those of a real diagnosis (certainty rises along the ladder, drift grows, low ReDo percentiles fall);
the numbers come out of formulas and a seeded generator.
"""

import math
import random
from typing import Any

GROUP = 8
SOURCE = "arXiv 2606.18487"

SIGNALS = (
    ("entropy_sampled", "entropy of the next token at the sampling temperature, own answers; bootstrap over prompts",
     "nats, 0 to log(vocabulary)", "above 0.18", SOURCE, "higher"),
    ("pass_at_1", "share of answers that pass", "share, 0 to 1", "above pass_floor", SOURCE, "higher"),
    ("pass_at_k", "chance that one of g answers passes", "share, 0 to 1", "above pass_at_1", "arXiv 2107.03374",
     "higher"),
    ("pass_gap", "pass_at_k - pass_at_1", "share, 0 to 1", "no threshold is known", "ours", "higher"),
    ("gradient_share", "share of prompts whose answers do not all earn the same", "share, 0 to 1",
     "no threshold is known", "arXiv 2503.14476", "higher"),
    ("pass_floor", "p*(g) = 1 - 2^(-1/g)", "share, 0 to 1", "a constant", SOURCE, "none"),
    ("entropy", "entropy of the next token, teacher-forced; bootstrap over examples", "nats, 0 to log(vocabulary)",
     "above 0.18", SOURCE, "higher"),
    ("top1_mass", "probability of the likeliest next token", "probability, 0 to 1", "no threshold is known", "max p",
     "lower"),
    ("entropy_gap", "mean |H_sft - H_base|", "nats, >= 0", "no threshold is known", "arXiv 2606.09932", "lower"),
    ("nll", "negative log-likelihood of the calibration responses", "nats a token, >= 0", "no threshold is known",
     "cross entropy", "none"),
    ("calibration_error", "gap between confidence and accuracy", "share, 0 to 1", "no threshold is known",
     "arXiv 1706.04599", "lower"),
    ("drift", "relative distance of the weights from the base", "ratio, >= 0", "it grows", "arXiv 2606.09932", "lower"),
    ("drift_spikes", "share of the squared distance that the 1 % of weights that moved most have", "share, 0.01 to 1",
     "no threshold is known", "ours", "lower"),
    ("update_cosine", "cosine between the last two steps of the ladder", "cosine, -1 to 1", "no threshold is known",
     "ours", "none"),
    ("sharpness_sam", "rise of the loss at a small distance along the gradient", "nats, >= 0", "no threshold is known",
     "arXiv 2010.01412", "lower"),
    ("critical_sharpness", "2 over the smallest step at which the loss rises", "1/step, > 0", "no threshold is known",
     "arXiv 2601.16979", "lower"),
    ("redo_p01", "1st percentile of ReDo scores; median over layers", "1, >= 0", "no threshold is known", "ReDo",
     "higher"),
    ("redo_p05", "5th percentile of ReDo scores; median over layers", "1, >= 0", "no threshold is known", "ReDo",
     "higher"),
    ("redo_dormant_0.025", "share of dormant neurons by ReDo", "share, 0 to 1", "0 says nothing", "ReDo", "none"),
    ("grama_p01", "1st percentile of GraMa scores; median over layers", "1, >= 0", "no threshold is known", "GraMa",
     "higher"),
    ("effective_rank", "rank of the residual stream", "1, >= 1", "no level is known", "RankMe", "none"),
    ("stable_rank", "stable rank of the residual stream", "1, >= 1", "no level is known", "ours", "none"),
)  # fmt: skip
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "input_layernorm", "whole")


def diagnosis(rungs: int = 8, layers: int = 16, positions: int = 200) -> dict[str, Any]:
    """What `rejuv diagnose` writes of a base and ``rungs`` checkpoints of an SFT run, each trained twice as long."""
    chance = random.Random(7)
    names = [f"global_step_{2**rung if rungs < 16 else 50 * (rung + 1)}" for rung in range(rungs)]
    return {
        "format": 1,
        "what": "diagnosis",
        "made": "2026-01-02T03:04:05+00:00",
        "versions": {"rejuv": "0.1.0", "torch": "2.13.0"},
        "machine": {"device": "cpu", "threads": 1},
        "seconds": 412.5,
        "settings": {"seed": 0, "temperature": 1.0},
        "base": {"name": "base", "path": "models/base"},
        "calibration": {"file": "probe.jsonl", "examples": 128, "response_tokens": 6400},
        "prompts": {"files": ["train.parquet"], "count": 64, "group": GROUP, "reward": "reward.py:compute_score"},
        "signals": [
            dict(zip(("name", "meaning", "unit", "healthy", "source", "better"), row, strict=True)) for row in SIGNALS
        ],
        "checkpoints": [
            _checkpoint(name, index / rungs, index, layers, positions, chance)
            for index, name in enumerate(["base", *names])
        ],
    }


def _checkpoint(name: str, depth: float, index: int, layers: int, positions: int, chance: random.Random) -> dict:
    def noisy(value: float, size: float = 0.02) -> float:
        return value * (1 + chance.gauss(0, size))

    def estimate(value: float, share: float | None = 0.06) -> dict[str, Any]:
        room = None if share is None else abs(value) * share + 0.003
        return {"value": value, "interval": None if room is None else [value - room, value + room]}

    entropy = 0.9 * math.exp(-2.6 * depth)
    first = 0.02 + 0.6 * (1 - math.exp(-5 * depth))
    best = min(0.97, first + 0.35 * math.exp(-2.2 * depth) + 0.08)
    drift = 0.06 * depth**0.7
    values = {
        "entropy_sampled": noisy(entropy * 0.9),
        "pass_at_1": first,
        "pass_at_k": best,
        "pass_gap": best - first,
        "gradient_share": 0.2 + 0.7 * math.exp(-2 * depth) * min(1.0, 8 * depth + 0.2),
        "entropy": noisy(entropy),
        "top1_mass": 1 - 0.4 * entropy,
        "nll": 0.03 + 1.4 * math.exp(-4 * depth),
        "calibration_error": 0.03 + 0.12 * depth,
    }
    exact = {"pass_floor": 1 - 2 ** (-1 / GROUP), "sharpness_sam": 0.002 * math.exp(2 * depth)}
    exact["critical_sharpness"] = 3.1 * math.exp(2.5 * depth)
    by_layer = {
        "redo_p01": [0.02 * math.exp(-1.5 * depth) * (1 + layer / layers) for layer in range(layers)],
        "redo_p05": [0.08 * math.exp(-1.1 * depth) * (1 + layer / layers) for layer in range(layers)],
        "redo_dormant_0.025": [0.01 + 0.05 * depth * layer / layers for layer in range(layers)],
        "grama_p01": [0.01 * math.exp(-2 * depth) * (1.5 - layer / layers) for layer in range(layers)],
        "effective_rank": [300 - 140 * depth * layer / layers for layer in range(layers)],
        "stable_rank": [None if layer == 2 else 12 - 5 * depth + layer / 4 for layer in range(layers)],
    }
    exact |= {signal: sorted(v for v in row if v is not None)[len(row) // 2 - 1] for signal, row in by_layer.items()}
    found: dict[str, Any] = {
        "name": name,
        "path": f"models/{name}",
        "role": "sft" if index else "base",
        "verdict": _verdict(values["entropy_sampled"], values["nll"]) if index else None,
        "layers": {name: [v if v is None else noisy(v) for v in row] for name, row in by_layer.items()},
        "modules": {},
        "positions": {"entropy": _positions(lambda at: noisy(entropy * (0.5 + math.exp(-at / 30)), 0.1), positions)},
        "curves": {
            "calibration_error": _curve(
                [0.3 + 0.05 * i for i in range(14)],
                [max(0.0, (0.3 + 0.05 * i) * (1 - 0.2 * depth)) for i in range(14)],
                "confidence: probability of the likeliest token", "accuracy: how often it came",
            ),
            "critical_sharpness": _curve(
                [0.02 * i for i in range(12)],
                [values["nll"] - 0.02 * i * 0.4 + (0.02 * i) ** 2 * 3 * math.exp(2 * depth) for i in range(12)],
                "distance from the weights along the negative gradient (L2)",
                "mean NLL of the calibration responses (nats)",
            ),
            "pass_at_k": _curve(
                list(range(1, GROUP + 1)),
                [first + (best - first) * math.log(k) / math.log(GROUP) for k in range(1, GROUP + 1)],
                "k answers", "pass@k, mean over prompts",
            ),
        },
    }  # fmt: skip
    if index:
        values["entropy_gap"] = 0.9 - entropy
        exact |= {"drift": drift, "drift_spikes": 0.085 + 0.2 * depth}
        exact |= {"update_cosine": 0.8 - 0.9 * depth} if index > 1 else {}
        found["layers"]["drift"] = [noisy(drift * (0.7 + 0.6 * layer / layers), 0.05) for layer in range(layers)]
        gaps = _positions(lambda at: noisy((0.9 - entropy) * math.exp(-at / 60) + 0.02, 0.15), positions)
        found["positions"]["entropy_gap"] = gaps
        found["modules"] = {"drift": _grid(layers, drift, noisy), "drift_spikes": _grid(layers, 0.1 + depth / 5, noisy)}
    found["numbers"] = {signal: estimate(value) for signal, value in values.items()} | {
        signal: estimate(value, None) for signal, value in exact.items()
    }
    found["numbers"] = {row[0]: found["numbers"].get(row[0], {"value": None, "interval": None}) for row in SIGNALS}
    return found


def _verdict(entropy: float, nll: float) -> dict[str, Any]:
    interval = [entropy * 0.94, entropy * 1.06]
    clear = not interval[0] < 0.18 < interval[1]
    level = "at_risk" if not clear or (nll < 0.05 < entropy) else "over_trained" if entropy < 0.18 else "ready"
    low, heart = entropy < 0.18, nll < 0.05
    said = {
        "ready": "nothing that was measured speaks against RL from here",
        "at_risk": "RL from here may learn less than it could",
        "over_trained": f"RL from here is likely to learn little: entropy_sampled {entropy:.3g} (below 0.18)",
    }
    advice = ["rejuvenate it: rejuv tune finds alpha by sampling", "or start RL from an earlier checkpoint"]
    return {
        "level": level,
        "headline": said[level],
        "reasons": [
            {"signal": "entropy_sampled", "value": entropy, "interval": interval, "threshold": 0.18, "bad": "below",
             "met": low, "clear": clear, "says": "it hardly explores: its answers to a prompt are nearly all the same",
             "source": f"{SOURCE}: pre-RL entropy at the sampling temperature predicts GRPO's outcome"},
            {"signal": "nll", "value": nll, "interval": [nll * 0.9, nll * 1.1], "threshold": 0.05, "bad": "below",
             "met": heart, "clear": True, "says": "it has the calibration responses by heart", "source": "ours"},
            {"signal": "drift_spikes", "value": 0.2, "interval": None, "threshold": 0.25, "bad": "above",
             "met": False, "says": "a few weights moved far", "source": "ours"},
        ],
        "advice": [] if level == "ready" else advice,
    }  # fmt: skip


def _curve(x: list, y: list, x_label: str, y_label: str) -> dict[str, Any]:
    return {"x": x, "y": y, "x_label": x_label, "y_label": y_label}


def _positions(value: Any, count: int) -> dict[str, list]:
    return {
        "position": list(range(count)),
        "value": [value(at) for at in range(count)],
        "count": [max(1, round(128 * math.exp(-at / count))) for at in range(count)],
    }


def _grid(layers: int, size: float, noisy: Any) -> dict[str, Any]:
    rows = ["model.embed_tokens", *(f"model.layers.{layer}" for layer in range(layers)), "lm_head"]
    values: list[list[float | None]] = [[None] * 8 + [noisy(size / 2)]]
    for _ in range(layers):
        values.append([noisy(size * (0.6 + 0.1 * column), 0.2) for column in range(8)] + [None])
    return {"rows": rows, "columns": list(MODULES), "values": [*values, [None] * 8 + [noisy(size)]]}


def tuning(rhos: tuple[float, ...] = (0.0,)) -> dict[str, Any]:
    """What `rejuv tune` writes of a grid of alphas: a coarse look at all of them, then a closer one at the best."""
    chance = random.Random(3)

    def trial(alpha: float, rho: float, prompts: int) -> dict[str, Any]:
        value = 0.42 - 1.1 * (alpha - 0.42) ** 2 - 2 * rho + chance.gauss(0, 0.15 / math.sqrt(prompts))
        room = 0.5 / math.sqrt(prompts)
        signals = {"pass_at_1": 0.2 + 0.4 * alpha, "pass_at_k": 0.75 - 0.3 * (alpha - 0.5) ** 2,
                   "entropy_sampled": 0.8 * math.exp(-1.5 * alpha)}  # fmt: skip
        return {
            "alpha": alpha, "rho": rho, "value": value, "interval": [value - room, value + room], "prompts": prompts,
            "group": GROUP, "seconds": 0.4 * prompts, "cached": prompts < 64,
            "signals": {name: {"value": v, "interval": [v - room / 2, v + room / 2]} for name, v in signals.items()},
            "stopped": None if abs(alpha - 0.45) < 0.12 else "clearly worse than the best",
        }  # fmt: skip

    alphas = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    trace = [trial(alpha, rho, 32) for rho in rhos for alpha in alphas]
    trace += [trial(alpha, rhos[0], 128) for alpha in (0.4, 0.45, 0.5)]
    best = max(trace[-3:], key=lambda t: t["value"])
    return {
        "format": 1,
        "what": "tuning",
        "made": "2026-01-02T03:04:05+00:00",
        "versions": {"rejuv": "0.1.0"},
        "machine": {"device": "cpu", "threads": 1},
        "seconds": 260.0,
        "settings": {"alphas": "0.2:0.8", "seed": 0},
        "base": {"name": "base", "path": "models/base"},
        "sft": {"name": "global_step_64", "path": "models/global_step_64"},
        "prompts": {"files": ["train.parquet"], "count": 128},
        "objective": {
            "name": "expected_advantage", "meaning": "mean standard deviation of rewards within a group of answers",
            "unit": "reward", "source": "ours", "better": "higher",
        },
        "choice": {
            "alpha": best["alpha"], "rho": best["rho"], "value": best["value"], "interval": best["interval"],
            "probability_best": 0.58, "says": "0.40 and 0.45 cannot be told apart; 0.2, 0.7 and 0.8 are clearly worse.",
            "against_half": {"difference": 0.011, "interval": [-0.02, 0.043]},
        },
        "trace": trace,
    }  # fmt: skip
