# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint can do before RL, in plain transformers, without verl.

python evaluate.py out/models/seed0-<hash>/sft64 [more checkpoints ...]

For each checkpoint, in and out of distribution: pass@1 and pass@8 at temperature 1, the mean token entropy of its own
answers, and the share of groups of 8 with a gradient (some answers right, some wrong; GRPO learns from no other).
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from nav_task import eval_problems
from nav_tokenizer import chat_ids
from reward import is_solution
from rich.console import Console
from rich.table import Table
from settings import Settings
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging


@dataclass(frozen=True)
class Evaluation:
    """One checkpoint on one set of problems. Entropy in nats, everything else a share."""

    pass_at_1: float
    pass_at_group: float
    token_entropy: float
    gradient_share: float


@dataclass(frozen=True)
class Sampled:
    """`group` answers for each problem, one problem after the other."""

    texts: list[str]
    ids: list[list[int]]
    """Token ids of each answer, its end token included unless it was cut off."""
    entropy: torch.Tensor
    """Of every token sampled, flat, in nats."""


@torch.no_grad()
def sample(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, problems: list[str], group: int, longest: int = 16
) -> Sampled:
    """Answers at temperature 1, from torch's global generator."""
    prompts = torch.tensor([chat_ids(tokenizer, problem) for problem in problems]).repeat_interleave(group, dim=0)
    output = model.generate(
        input_ids=prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=longest,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    answers = output.sequences[:, prompts.shape[1] :]
    log_probs = torch.stack(output.logits, dim=1).float().log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    # A token was sampled if no end token comes before it.
    ended = (answers == tokenizer.eos_token_id).int().cumsum(1) - (answers == tokenizer.eos_token_id).int()
    ids = [row[:length].tolist() for row, length in zip(answers, (ended == 0).sum(1), strict=True)]
    return Sampled(tokenizer.batch_decode(answers, skip_special_tokens=True), ids, entropy[ended == 0])


def evaluate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, problems: list[str], group: int = 8, seed: int = 0
) -> Evaluation:
    """Sample and score."""
    torch.manual_seed(seed)
    sampled = sample(model.eval(), tokenizer, problems, group)
    correct = [is_solution(answer.strip(), problems[i // group]) for i, answer in enumerate(sampled.texts)]
    rewards = torch.tensor(correct).float().view(-1, group)
    rate = rewards.mean(1)
    return Evaluation(
        pass_at_1=rate.mean().item(),
        pass_at_group=(rate > 0).float().mean().item(),
        token_entropy=sampled.entropy.mean().item(),
        gradient_share=((rate > 0) & (rate < 1)).float().mean().item(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--title", default="Checkpoints before RL")
    args = parser.parse_args()
    transformers_logging.disable_progress_bar()
    group = args.group
    columns = ("checkpoint", "problems", "pass@1", f"pass@{group}", "entropy (nats)", "groups with a gradient")
    table = Table(*columns, title=args.title)
    for path in args.checkpoints:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(path)
        for source, problems in eval_problems(Settings()).items():
            result = evaluate(model, tokenizer, problems, group)
            where = "in distribution" if source == "nav_in" else "out of distribution"
            shares = (result.pass_at_1, result.pass_at_group, result.token_entropy, result.gradient_share)
            table.add_row(path.name, where, *(f"{value:.3f}" for value in shares))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
