# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Arms under plain GRPO with the plugin's own monitors and alarms on; each leaves the directory that a verl run would.

python monitored.py --seeds 2 3 4 --models OUT --runs RUNS                        (models: ../quickstart/make_models.py)
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from arms import ARMS
from grpo import RL, train
from settings import models_dir
from study import SETTINGS, bits_of, load, make_start, measure_policy
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from rejuv_plugin.monitors import groups
from rejuv_plugin.monitors.alarms import Alarms
from rejuv_plugin.monitors.gradients import GradientsMonitor
from rejuv_plugin.monitors.history import ALARMS, PLASTICITY, History, step_record
from rejuv_plugin.monitors.tokens import TokensMonitor
from rejuv_plugin.monitors.weights import WeightsMonitor
from rejuv_plugin.ops.distribution import entropy_and_top1, moments

COMPARED = ("over", "fusion", "moderate")


class Monitors:
    """The core monitors of one process, as verl's workers and trainer have them."""

    def __init__(self, model: PreTrainedModel, base: dict[str, Tensor], directory: Path) -> None:
        layers = model.config.num_hidden_layers
        self._model, self._alarms = model, Alarms()
        self._tokens, self._gradients = TokensMonitor(), GradientsMonitor(layers, counts_steps=True)
        self._weights = WeightsMonitor(layers, 4096, lambda name, elements, at: base[name].reshape(-1)[at].double())
        self._steps, self._raised = History(directory / PLASTICITY), History(directory / ALARMS)
        self._found: dict[str, float] = {}
        self._start = None
        self._stream()

    def _stream(self) -> None:
        for _ in self._weights.watch(self._model.named_parameters()):
            pass

    @torch.no_grad()
    def before_update(self, prompt: Tensor, answers: Sequence[list[int]], rewards: Tensor) -> None:
        longest = max(map(len, answers))
        padded = torch.tensor([ids + [self._model.config.pad_token_id] * (longest - len(ids)) for ids in answers])
        tokens = torch.cat([prompt, padded], 1)
        logits = self._model(input_ids=tokens[:, :-1], use_cache=False).logits[:, prompt.shape[1] - 1 :].flatten(0, 1)
        said = torch.tensor([[i < len(ids) for i in range(longest)] for ids in answers]).flatten().nonzero()[:, 0]
        at_one = torch.ones(len(said))
        self._tokens.add(*entropy_and_top1(moments(logits, said, at_one)[1:]))
        self._gradients.add((name, p.grad) for name, p in self._model.named_parameters() if p.grad is not None)
        prompts = [str(i) for i in range(len(rewards)) for _ in rewards[i]]
        found = groups.signals(rewards.flatten().tolist(), prompts, 0.5, compared=True)
        self._found = {f"training/plasticity/{name}": value for name, value in found.items()}
        self._found["critic/score/mean"] = rewards.mean().item()

    def after_update(self, step: int, lr: float) -> None:
        self._stream()
        layers: dict[str, list[float]] = {}
        for monitor in (self._tokens, self._gradients, self._weights):
            values = monitor.values(monitor.sums())
            self._found |= {f"actor/plasticity/{name}": value for name, value in values.flat().items()}
            layers |= {f"actor/plasticity/{name}": each for name, each in values.layers.items()}
        entropy = self._found["actor/plasticity/entropy"]
        self._start = self._start or entropy
        self._found |= {"actor/plasticity/entropy_drop": 1 - entropy / self._start, "actor/lr": lr}
        self._found["actor/grad_norm"] = self._found["actor/plasticity/grad_norm"]
        for alarm in self._alarms.look(step, self._found):
            self._raised.add(alarm.to_json())
        self._steps.add(step_record(step, self._found | self._alarms.metrics(), layers))


def run(name: str, seed: int, models: Path, directory: Path, steps: int) -> dict[str, object]:
    """One arm of one seed: a directory with ``plasticity.jsonl``, ``alarms.jsonl`` and ``result.json``."""
    # Of a run that was stopped: histories only grow, and it begins anew.
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as made:
        path, _ = make_start(ARMS[name], models, seed, Path(made))
        model, tokenizer = load(path)
    base = {name: p.detach() for name, p in load(models / "base")[0].named_parameters()}
    before = measure_policy(model, tokenizer)
    train(model, tokenizer, SETTINGS, RL(steps=steps), seed, Monitors(model, base, directory))
    ends = {"before": before, "after": measure_policy(model, tokenizer)}
    result = {"arm": name, "seed": seed, "weights": bits_of(models)} | ends
    (directory / "result.json").write_text(json.dumps(result) + "\n")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--arms", nargs="+", default=list(COMPARED), choices=list(ARMS))
    parser.add_argument("--models", type=Path, required=True, help="the --out that make_models.py was given")
    parser.add_argument("--runs", type=Path, required=True, help="a directory for each run; those with a result stay")
    parser.add_argument("--steps", type=int, default=RL.steps)
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    for seed in args.seeds:
        for name in args.arms:
            directory = args.runs / f"seed{seed}-{name}"
            if (directory / "result.json").exists():
                continue
            result = run(name, seed, models_dir(args.models, seed, SETTINGS), directory, args.steps)
            inside = " -> ".join(f"{result[when]['nav_in']['pass_at_1']:.3f}" for when in ("before", "after"))
            print(f"seed {seed} {name:10} in distribution {inside}", flush=True)


if __name__ == "__main__":
    main()
