# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""GRPO in plain PyTorch, on the quickstart's task: a run in seconds, where verl needs minutes for the same sums.

The algorithm is the one that the quickstart asks verl for: one on-policy step a batch, so that neither ratio nor clip
matters; advantages divided by the group's standard deviation; a mean over tokens; AdamW, gradients clipped at 1; no KL
term, no entropy bonus.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from evaluate import sample
from nav_task import rl_prompts
from nav_tokenizer import chat_ids
from reward import is_solution
from settings import Settings
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class RL:
    """Settings of a run; the defaults are those of ../quickstart/run_nav_fsdp2.sh."""

    steps: int = 40
    prompts: int = 32
    group: int = 8
    lr: float = 3e-4
    max_response: int = 16


class Watcher(Protocol):
    """Sees each step; changes nothing."""

    def before_update(self, prompt: torch.Tensor, answers: Sequence[list[int]], rewards: torch.Tensor) -> None:
        """Gradients are there and not clipped. ``[B, P]`` prompts, B answers, ``[prompts, group]`` rewards."""

    def after_update(self, step: int, lr: float) -> None:
        """Of ``step``, from 1."""


def advantages(rewards: torch.Tensor) -> torch.Tensor:
    """``[prompts, group]`` rewards to advantages of the same shape (Shao et al., arXiv 2402.03300, Eq. 3)."""
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-6)


def policy_loss(
    model: PreTrainedModel,
    prompt: torch.Tensor,
    answers: list[list[int]],
    advantage: torch.Tensor,
    said: list[list[int]] | None = None,
) -> torch.Tensor:
    """``-advantage * log p`` of the tokens that the policy said, averaged over all of the batch.

    Args:
        model: the policy.
        prompt: ``[B, P]`` int64.
        answers: B lists of token ids, each with its end token unless it was cut off.
        advantage: ``[B]``.
        said: for each answer, 1 at the policy's own tokens and 0 at an environment's; without it all are its own.
    """
    longest = max(map(len, answers))
    padded = torch.tensor([ids + [model.config.pad_token_id] * (longest - len(ids)) for ids in answers])
    said = said or [[1] * len(ids) for ids in answers]
    mask = torch.tensor([own + [0] * (longest - len(own)) for own in said], dtype=torch.float32)
    tokens = torch.cat([prompt, padded], 1)
    # Padding is on the right and attention is causal: no attention mask is needed.
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits[:, prompt.shape[1] - 1 :]
    log_p = logits.log_softmax(-1).gather(-1, padded[..., None])[..., 0]
    return -(log_p * mask * advantage[:, None]).sum() / mask.sum()


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    rl: RL,
    seed: int,
    watcher: Watcher | None = None,
) -> list[float]:
    """Train ``model`` in place. Returns the mean reward of each step's answers, before its update."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rl.lr, weight_decay=0.0)
    pool, order = rl_prompts(settings, seed), random.Random(f"grpo-{seed}")
    torch.manual_seed(seed)
    curve = []
    for step in range(1, rl.steps + 1):
        problems = order.sample(pool, rl.prompts)
        sampled = sample(model.eval(), tokenizer, problems, rl.group, rl.max_response)
        correct = [is_solution(text.strip(), problems[i // rl.group]) for i, text in enumerate(sampled.texts)]
        rewards = torch.tensor(correct).float().view(rl.prompts, rl.group)
        curve.append(rewards.mean().item())
        prompt = torch.tensor([chat_ids(tokenizer, problem) for problem in problems])
        prompt = prompt.repeat_interleave(rl.group, 0)
        loss = policy_loss(model.train(), prompt, sampled.ids, advantages(rewards).flatten())
        optimizer.zero_grad()
        loss.backward()
        if watcher:
            watcher.before_update(prompt, sampled.ids, rewards)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if watcher:
            watcher.after_update(step, rl.lr)
    return curve
